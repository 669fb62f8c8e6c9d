"""What a sharded checkpoint holds beside weights and optimizer comes back as it was, whatever the run has now."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint import FileSystemReader, FileSystemWriter  # pyright: ignore[reportPrivateImportUsage]
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from theworld.checkpoint.beside_weights import read_nesting, take_nesting, trim

GENERATIONS = [{"name": f"gen-{number:05}", "samples": 100} for number in range(3)]
SAVED = {
    "model": {"weight": torch.ones(3)},
    "dataset_state": {"train": {"stages": [{"position": 0}, {"position": 8}], "generations": GENERATIONS}, "eval": {}},
    "callbacks": {"LossCurve": {"points": [[1, 7.0], [2, 6.5]]}, "Smoothed": {"mean": torch.tensor([2.5])}},
    "integrations": {"huggingface": {"tokenizer": {"vocabulary": {f"word{number}": number for number in range(99)}}}},
    "metadata": {"world_size": 2},
}


def read_back(folder: Path, own: dict[str, Any]) -> dict[str, Any]:
    """Into ``own``, as Composer reads a sharded checkpoint into the state of the run that loads it."""
    reader = FileSystemReader(folder)
    take_nesting(own, read_nesting(reader.read_metadata()))
    load({"state": own}, storage_reader=reader, no_dist=True)
    return own


def test_stages_and_generations_of_the_run_that_wrote_it_are_read(tmp_path: Path) -> None:
    save({"state": SAVED}, storage_writer=FileSystemWriter(tmp_path), no_dist=True)
    own = {
        "model": {"weight": torch.zeros(3)},
        "dataset_state": {"train": {"stages": [{"position": 4}], "generations": [*GENERATIONS, GENERATIONS[0]]}},
        "callbacks": {"LossCurve": {"points": []}, "EarlyStopper": {"best": 0.0}},
        "metadata": {"world_size": 1},
    }
    read = read_back(tmp_path, own)
    assert read["dataset_state"]["train"] == SAVED["dataset_state"]["train"]
    assert read["callbacks"].keys() == {"LossCurve", "Smoothed"}
    assert read["callbacks"]["LossCurve"] == SAVED["callbacks"]["LossCurve"]
    assert read["callbacks"]["Smoothed"]["mean"] == 2.5
    assert read["model"]["weight"].eq(1).all()
    assert "integrations" not in read


def test_only_a_sharded_checkpoint_has_the_data_sets_state_as_text(tmp_path: Path) -> None:
    from torch.distributed import destroy_process_group, init_process_group
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import distribute_tensor

    plain: dict[str, Any] = dict(SAVED)
    trim(plain)
    assert plain["dataset_state"] == SAVED["dataset_state"]
    assert "integrations" not in plain

    init_process_group("gloo", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1)
    try:
        sharded = {**SAVED, "model": {"weight": distribute_tensor(torch.ones(3), init_device_mesh("cpu", (1,)))}}
        trim(sharded)
    finally:
        destroy_process_group()
    assert json.loads(sharded["dataset_state"]["train"]) == SAVED["dataset_state"]["train"]
