"""What a sharded checkpoint holds beside weights and optimizer comes back as it was, whatever the run has now."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from composer.utils.reproducibility import get_rng_state, load_rng_state
from torch.distributed.checkpoint import FileSystemReader, FileSystemWriter  # pyright: ignore[reportPrivateImportUsage]
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from theworld.checkpoint.beside_weights import read_nesting, take_nesting, trim
from theworld.checkpoint.data_only import load_folder
from theworld.checkpoint.random_states import pack_random_states, unpack_random_states
from theworld.config.schema import ModelConfig
from theworld.model.build import load_processor, load_shapes
from theworld.train.composer_model import ComposerTheWorld

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
    load(own, storage_reader=reader, no_dist=True)
    return own


def test_stages_and_generations_of_the_run_that_wrote_it_are_read(tmp_path: Path) -> None:
    save({"state": SAVED}, storage_writer=FileSystemWriter(tmp_path), no_dist=True)
    own: dict[str, Any] = {
        "model": {"weight": torch.zeros(3)},
        "dataset_state": {"train": {"stages": [{"position": 4}], "generations": [*GENERATIONS, GENERATIONS[0]]}},
        "callbacks": {"LossCurve": {"points": []}, "EarlyStopper": {"best": 0.0}},
        "metadata": {"world_size": 1},
    }
    read = read_back(tmp_path, {"state": own})["state"]
    assert read["dataset_state"]["train"] == SAVED["dataset_state"]["train"]
    assert read["callbacks"].keys() == {"LossCurve", "Smoothed"}
    assert read["callbacks"]["LossCurve"] == SAVED["callbacks"]["LossCurve"]
    assert read["callbacks"]["Smoothed"]["mean"] == 2.5
    assert read["model"]["weight"].eq(1).all()
    assert "integrations" not in read


def test_only_a_sharded_checkpoint_has_the_data_sets_state_as_text(tmp_path: Path) -> None:
    from torch.distributed import destroy_process_group, init_process_group, is_initialized
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import distribute_tensor

    plain: dict[str, Any] = dict(SAVED)
    whole: dict[str, Any] = {"state": plain, "rng": [random_states(0)]}
    trim(whole)
    assert isinstance(whole["rng"], list)
    assert plain["dataset_state"] == SAVED["dataset_state"]
    assert "integrations" not in plain

    if is_initialized():  # of a run in this process
        destroy_process_group()
    init_process_group("gloo", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1)
    try:
        sharded = {**SAVED, "model": {"weight": distribute_tensor(torch.ones(3), init_device_mesh("cpu", (1,)))}}
        parts: dict[str, Any] = {"state": sharded, "rng": [random_states(0), random_states(1)]}
        trim(parts)
    finally:
        destroy_process_group()
    assert len(unpack_random_states(parts["rng"])) == 2
    assert json.loads(sharded["dataset_state"]["train"]) == SAVED["dataset_state"]["train"]


def random_states(seed: int) -> dict[str, Any]:
    """Of one rank, as Composer gathers them; a GPU's are bytes too."""
    random.seed(seed)
    random.gauss(0, 1)  # leaves a number behind
    states = np.random.RandomState(seed).get_state()
    generator = torch.Generator().manual_seed(seed)
    cuda = torch.arange(16, dtype=torch.uint8)
    return {"python": random.getstate(), "numpy": states, "torch": generator.get_state(), "cuda": cuda}


def test_composer_is_not_even_asked_for_configuration_and_tokenizer() -> None:
    """Leaving them out of the file alone, they would still be written and read for each save: seconds of CPU."""
    config = ModelConfig(gemma="builtin:tiny", cosmos="builtin:tiny", world_image_size=64)
    assert ComposerTheWorld(load_shapes(config), load_processor(config)).get_metadata() == {}


@pytest.mark.parametrize("ranks", [1, 64])
@pytest.mark.parametrize("packed", [True, False])
def test_random_states_are_one_entry_and_come_back(tmp_path: Path, ranks: int, packed: bool) -> None:
    """Those that were written before, some entries a rank, are read as Composer reads them."""
    saved = [random_states(rank) for rank in range(ranks)]
    written: dict[str, Any] = {"state": SAVED, "rng": pack_random_states(saved) if packed else saved}
    save(written, storage_writer=FileSystemWriter(tmp_path), no_dist=True)
    names = FileSystemReader(tmp_path).read_metadata().state_dict_metadata
    assert len([name for name in names if name.startswith("rng")]) == (1 if packed else 4 * ranks)
    own = [random_states(rank + 99) for rank in range(0 if packed else ranks)]  # Composer counts what the file has
    read = read_back(tmp_path, {"state": {"model": {"weight": torch.zeros(3)}}, "rng": own})["rng"]
    for back, then in zip(unpack_random_states(read) if packed else read, saved, strict=True):
        assert back["python"] == then["python"]
        assert all(np.array_equal(*pair) for pair in zip(back["numpy"], then["numpy"], strict=True))
        assert torch.equal(back["torch"], then["torch"])
        assert torch.equal(back["cuda"], then["cuda"])
    whole = load_folder(tmp_path)["rng"]  # as an upload reads it
    assert [states["python"] for states in whole] == [states["python"] for states in saved]
    assert "rng" not in read_back(tmp_path, {"state": {"model": {"weight": torch.zeros(3)}}})  # weights only


@pytest.mark.parametrize("packed", [True, False])
def test_composers_generators_go_on_from_them(packed: bool) -> None:
    states = get_rng_state()
    expected = (random.random(), np.random.rand(), torch.rand(1))
    load_rng_state(unpack_random_states(pack_random_states(states)) if packed else states)
    assert (random.random(), np.random.rand(), torch.rand(1)) == expected
