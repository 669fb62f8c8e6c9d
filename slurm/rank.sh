#!/bin/bash
# One rank: SLURM's task numbers in the names that composer reads, then the script. Run by srun (run_ranks of slurm/lib.sh).
# One task a rank and not one composer launcher a node: the launcher gets the step's signals too and kills its ranks
# 30 seconds later, which a save of a large model may outlast; a task has all of the partition's grace.
export RANK=$SLURM_PROCID WORLD_SIZE=$SLURM_NTASKS NODE_RANK=$SLURM_NODEID
export LOCAL_RANK=$SLURM_LOCALID LOCAL_WORLD_SIZE=$RANKS_PER_NODE
# Composer takes the GPU of this number on the node, so that a rank must see them all.
visible=${CUDA_VISIBLE_DEVICES:-}
visible=${visible//[!,]/}
if [ -n "${SLURM_GPUS_ON_NODE:-}" ] && [ $((${#visible} + 1)) -lt "$RANKS_PER_NODE" ]; then
  [ "$SLURM_LOCALID" -ne 0 ] || echo "error: $(hostname): each of the $RANKS_PER_NODE ranks of this node sees $((${#visible} + 1)) of its GPUs" \
    "(CUDA_VISIBLE_DEVICES=${CUDA_VISIBLE_DEVICES:-}): submit with --gpus-per-node=$RANKS_PER_NODE and without --gpu-bind" >&2
  exit 2
fi
exec "$PYTHON" "$@"
