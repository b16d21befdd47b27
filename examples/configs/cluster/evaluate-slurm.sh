#!/bin/sh
# Measures one cell in eight shards. Submit with: sbatch evaluate-slurm.sh
# A shard that was killed is resumed when it is submitted again.
# When all shards are done, cargo xtask report combines them.
#SBATCH --job-name=evaluate
#SBATCH --array=0-7
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=8
#SBATCH --mem=64G
#SBATCH --time=08:00:00
#SBATCH --requeue
#SBATCH --output=evaluate-%A-%a.log
set -eu

OUT=${OUT:-$PWD/results/vispec}

# Shards are numbered from 0.
exec evaluate \
    --target "$PWD/models/llava-v1.6-vicuna-7b-hf" --device cuda:0 \
    --draft "$PWD/runs/stage2/best" --method vispec \
    --task mmvet --data "$PWD/MM-Vet" \
    --total-token 30 --depth 3 --top-k 8 \
    --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT" \
    --out "$OUT/shard-$SLURM_ARRAY_TASK_ID"
