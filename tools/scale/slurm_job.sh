#!/bin/sh
# slurm_job.sh - a job array that classifies a list of images, a shard a task.
#
#   sbatch --array=1-SHARDS slurm_job.sh LIST MODEL PARTS
#
# Task I appends to PARTS/I.jsonl. Slurm starts it again where its node was lost, and it asks to be where its program was
# killed; it then goes on after the records that are there. So does the same command after a time limit. RESNET_PROGRAM is
# the program, if it is not in PATH.
#SBATCH --job-name=resnet
#SBATCH --cpus-per-task=1
#SBATCH --requeue
#SBATCH --open-mode=append
"${RESNET_PROGRAM:-resnet}" classify --model "$2" --files-from "$1" --json --threads "$SLURM_CPUS_PER_TASK" \
    --shard auto --resume "$3/$SLURM_ARRAY_TASK_ID.jsonl"
code=$?
if [ $code -gt 128 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 3 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
[ $code -le 1 ] # 1: some images are broken, which have records too
