#!/bin/sh
# Captures stage 2 in eight shares, one GPU each. Submit with: sbatch capture-slurm.sh
# A share that was killed is resumed when it is submitted again.
# When all shares are done: capture merge --out $OUT/whole $OUT/share-*
#SBATCH --job-name=capture
#SBATCH --array=1-8
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=8
#SBATCH --mem=64G
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --output=capture-%A-%a.log
set -eu

OUT=${OUT:-$PWD/captures/stage2}

exec capture run \
    --target Qwen/Qwen2.5-VL-7B-Instruct --device cuda:0 \
    --stage 2 --storage compact \
    --source llava-pretrain \
    --data "$PWD/LLaVA-Pretrain/blip_laion_cc_sbu_558k.json" --images "$PWD/LLaVA-Pretrain" \
    --end 68000 --max-bad-rows 100 \
    --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT" \
    --out "$OUT/share-$SLURM_ARRAY_TASK_ID"
