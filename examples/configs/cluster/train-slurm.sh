#!/bin/bash
# Trains a draft on four nodes, two processes each. Submit with: sbatch train-slurm.sh
# The job is requeued when it is preempted, when a node fails, and when its time is up. It resumes
# from its last checkpoint, even with another number of nodes.
#SBATCH --job-name=train
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=2
#SBATCH --cpus-per-task=16
#SBATCH --mem=64G
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=train-%j.log
# Two minutes before the end, all processes are asked to stop: they save the state after the
# current step.
#SBATCH --signal=TERM@120
set -eu

# Paths on a file system that all nodes share.
DATA=${DATA:-$PWD/captures/stage2/whole}
OUT=${OUT:-$PWD/runs/stage2}

# Each process uses one thread per core that Slurm gave it.
export RAYON_NUM_THREADS=$SLURM_CPUS_PER_TASK

# A step has one batch per process.
if srun --mpi=pmix --kill-on-bad-exit=1 --cpu-bind=cores \
    train \
    --config examples/configs/train/vispec-stage2.toml --set "data.accumulate=$SLURM_NTASKS" \
    --target "$PWD/models/llava-v1.6-vicuna-7b-hf" --data "$DATA" --out "$OUT"; then
    exit 0
fi
# Interrupted, or a process died. The number of restarts is limited, because a mistake in the flags
# would fail every time.
if [ "${SLURM_RESTART_COUNT:-0}" -lt 20 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit 1
