#!/bin/bash
# One rank: SLURM's task numbers in the names that composer reads, then the trainer. Run by srun in slurm/train.sbatch.
# One task a rank and not one composer launcher a node: the launcher gets the step's signals too and kills its ranks
# 30 seconds later, which a save of a large model may outlast; a task has all of the partition's grace.
export RANK=$SLURM_PROCID WORLD_SIZE=$SLURM_NTASKS NODE_RANK=$SLURM_NODEID
export LOCAL_RANK=$SLURM_LOCALID LOCAL_WORLD_SIZE=$RANKS_PER_NODE
exec "$PYTHON" recipes/train.py "$@"
