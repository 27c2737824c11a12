#!/bin/bash
# The campaign itself, which decides what is trained: sbatch slurm-run.sh
#SBATCH --job-name=tuner-run
#SBATCH --partition=gpu
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=04:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log

cd /shared/study || exit 1
. /shared/venv/bin/activate
export TUNER_STORAGE=postgresql://tuner@db.example.org/tuner # the password is in ~/.pgpass
export OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK

trap : TERM # SLURM signals this shell too, which has to outlive srun
srun tuner run study.py --yes --checkpoints /shared/checkpoints
code=$?

job=$SLURM_JOB_ID
case $code in
  75 | 130 | 137 | 143) # go on later: 137 and 143 are a process that was killed
    # scancel ends a job for good: only a job that still runs, or that met its time limit, comes back.
    if scontrol show job "$job" | grep -Eq 'JobState=RUNNING|Reason=TimeLimit'; then
      scontrol requeue "$job"
    fi
    ;;
esac
exit $code
