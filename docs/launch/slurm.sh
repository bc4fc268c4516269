#!/usr/bin/env bash
#SBATCH --job-name=jaxdl
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8     # a process for each GPU: JAX gives each task the one of its local number
#SBATCH --gres=gpu:8
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --signal=TERM@120       # two minutes before the end: the run writes a checkpoint and stops
#SBATCH --requeue
# sbatch docs/launch/slurm.sh ppo --num-envs 4096 --total-steps 1000000000
# --out must lie where all nodes see it. SLURM announces the processes, and jaxdl joins them; a job that comes back goes on.
set -euo pipefail
run=${RUN:-$PWD/runs/$SLURM_JOB_NAME-$SLURM_JOB_ID}
if [ -d "$run/checkpoints" ]; then
  exec srun jaxdl resume "$run" --distributed
fi
exec srun jaxdl train "$@" --out "$run" --distributed
