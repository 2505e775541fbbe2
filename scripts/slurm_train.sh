#!/usr/bin/env bash
# One run as one SLURM job: sbatch scripts/slurm_train.sh +recipe=mae_vit scale=paper trainer.devices=8
# Set GPUs, processors and time for your cluster; one task, as the run starts a process for each device itself. Two minutes
# before its time is up, or when it is preempted, the job saves, is requeued and goes on with its run.
#SBATCH --job-name=encdec-train
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=12:00:00
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.log
exec srun encdec-train "$@"
