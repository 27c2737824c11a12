#!/bin/bash
# Gangs of a campaign, each of which trains one trial on all GPUs of two nodes: sbatch slurm-gangs.sh
#SBATCH --job-name=tuner-gangs
#SBATCH --array=0-3
#SBATCH --partition=gpu
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gres=gpu:4
#SBATCH --cpus-per-task=8
#SBATCH --mem=128G
#SBATCH --time=04:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%A-%a.log

cd /shared/study || exit 1
. /shared/venv/bin/activate
export TUNER_STORAGE=postgresql://tuner@db.example.org/tuner # the password is in ~/.pgpass
export OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
# Each task is a rank; rank 0 listens for the others on the first node, where this script runs, too.
MASTER_ADDR=$(hostname)
export MASTER_ADDR MASTER_PORT=$((20000 + SLURM_JOB_ID % 10000)) WORLD_SIZE=$SLURM_NTASKS

trap : TERM # SLURM signals this shell too, which has to outlive srun
# shellcheck disable=SC2016 # each task expands them
srun --kill-on-bad-exit=0 bash -c 'export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID; exec "$@"' rank \
  tuner worker study.py --until campaign --wait-for-launch 86400 --idle-timeout 3600 \
  --checkpoints /shared/checkpoints --quiet
code=$?

job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID # of the last task, SLURM_JOB_ID is the whole array
case $code in
  75 | 130 | 137 | 143) # go on later: 137 and 143 are a process that was killed
    # scancel ends a job for good: only a job that still runs, or that met its time limit, comes back.
    if scontrol show job "$job" | grep -Eq 'JobState=RUNNING|Reason=TimeLimit'; then
      scontrol requeue "$job"
    fi
    ;;
esac
exit $code
