#!/bin/bash
# A study on many machines, as an array job of SLURM: sbatch docs/array_job.sh
# Each task trains one part; a task that is killed or sent again goes on where it was.
# Tasks are counted from 1, and all write to one folder. Another scheduler needs its own
# two numbers; one that counts from 0: --shard "$((ID + 1))/$COUNT".
#SBATCH --job-name=mtl-optax
#SBATCH --array=1-8
#SBATCH --cpus-per-task=4
#SBATCH --time=04:00:00
#SBATCH --requeue
set -euo pipefail

mtl-optax study stress --out results/stress --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT"

# When all are done, once, anywhere that sees the folder:
#   mtl-optax report results/stress
# It makes the page and the tables, or exits with 1 and prints the commands that are
# missing. As a job: sbatch --dependency=afterany:JOBID --wrap "mtl-optax report ..."
