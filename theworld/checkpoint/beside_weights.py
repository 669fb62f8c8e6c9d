"""What a checkpoint holds beside weights and optimizer: little, and read back as it was written.

A sharded checkpoint has an entry for every value of a nested state, and reads back only those entries that the state
of the run that loads it happens to have: a data set that has grown since, or one more callback, and it would ask for
entries that are not there, or miss some that are. So the file's own nesting is what it is read into.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch.distributed.checkpoint._nested_dict import unflatten_state_dict
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.tensor import DTensor

from theworld.checkpoint.random_states import pack_random_states

STATE = "state"
RANDOM = "rng"
WITH_MODEL = ("model", "optimizers")
"""Parts of Composer's state whose nesting follows from the model."""
NOT_READ = "integrations"
"""What checkpoints held before: configuration and tokenizer, an entry for each word of the vocabulary."""


def trim(checkpoint: dict[str, Any]) -> None:
    """Make what is about to be written small, in number of entries too.

    Composer's ``integrations`` are for its own loading of transformers' models; ``pretrained/`` in the save folder has
    the same. Of a sharded checkpoint the data set's state, which has some entries for every generation of the data,
    becomes one text, and the random generators' states, some entries for every rank, one tensor.
    """
    state = checkpoint[STATE]
    state.pop(NOT_READ, None)
    if not any(isinstance(weight, DTensor) for weight in state["model"].values()):
        return
    data = state.get("dataset_state")
    if data is not None and isinstance(data.get("train"), Mapping):
        state["dataset_state"] = {**data, "train": json.dumps(data["train"])}
    if RANDOM in checkpoint:
        checkpoint[RANDOM] = pack_random_states(checkpoint[RANDOM])


def read_nesting(metadata: Metadata) -> dict[str, Any]:
    """A sharded checkpoint without model and optimizer, placeholders for its values.

    Random states are among them only if they are one tensor; those of before, a list, Composer reads by itself.
    """
    paths = metadata.planner_data or {}
    skipped = tuple(f"{STATE}.{part}." for part in (*WITH_MODEL, NOT_READ))
    wanted = {
        name: path
        for name, path in paths.items()
        if path == (RANDOM,) or (path[0] == STATE and not name.startswith(skipped))
    }
    values = {name: _placeholder(metadata.state_dict_metadata[name]) for name in wanted}
    return unflatten_state_dict(values, wanted)


def _placeholder(entry: Any) -> Any:
    if isinstance(entry, TensorStorageMetadata):
        return torch.empty(entry.size, dtype=entry.properties.dtype)
    return None


def take_nesting(checkpoint: dict[str, Any], nesting: dict[str, Any]) -> None:
    """Make what a sharded checkpoint is read into hold what the checkpoint holds."""
    state = checkpoint[STATE]
    for part in [part for part in state if part not in WITH_MODEL]:
        del state[part]
    state.update(nesting.get(STATE, {}))
    if RANDOM in checkpoint and RANDOM in nesting:
        checkpoint[RANDOM] = nesting[RANDOM]
