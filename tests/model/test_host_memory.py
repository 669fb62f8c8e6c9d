"""What loading costs the memory of a machine whose ranks each load the model: the mapped files, once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import Gemma3Config, Gemma3ForConditionalGeneration

from tests.helpers.ranks import run_on_ranks
from theworld.model.tiny import tiny_folder

RANK = """
import hashlib, json, sys
from pathlib import Path

import torch
from torch import distributed

from theworld.config.schema import FreezeConfig, ModelConfig
from theworld.model import load_model

distributed.init_process_group("gloo")

def read(file, key):
    lines = Path("/proc/self", file).read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(key + ":"))

def load(gemma, trains, device=None):
    freeze = FreezeConfig(vision=not trains, language=not trains)
    cfg = ModelConfig(gemma=gemma, cosmos="builtin:tiny", world_image_size=64, freeze=freeze)
    return load_model(cfg, frozen_dtype=torch.bfloat16, device=device)

def digest(model):
    made = hashlib.sha256()
    for name, weight in model.state_dict().items():
        made.update(name.encode() + weight.contiguous().view(torch.uint8).numpy().tobytes())
    return made.hexdigest()

load("builtin:tiny", True)  # what is imported and allocated once
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
found = {"peak": -read("status", "VmHWM")}
# As it goes to a GPU: a device whose memory is not the machine's. Nothing may be read or cast before.
elsewhere = load(sys.argv[1], True, torch.device("meta"))
found["peak"] += read("status", "VmHWM")
found["dtypes"] = sorted({str(weight.dtype) for weight in elsewhere.parameters()})
found["private"] = -read("smaps_rollup", "Anonymous")
frozen = load(sys.argv[1], False)
found["private"] += read("smaps_rollup", "Anonymous")
found["digest"] = digest(frozen)
every = [None] * distributed.get_world_size()
distributed.all_gather_object(every, found)
if distributed.get_rank() == 0:
    print(json.dumps(every))
distributed.destroy_process_group()
"""


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A Gemma 3 whose weights are large beside everything else that a process allocates, and their bytes."""
    folder = tmp_path_factory.mktemp("gemma")
    for path in (tiny_folder() / "gemma").iterdir():
        if path.suffix != ".safetensors" and path.is_file():
            (folder / path.name).write_bytes(path.read_bytes())
    config = Gemma3Config.from_pretrained(folder)
    config.text_config.intermediate_size = 200_000
    torch.manual_seed(5)
    model = Gemma3ForConditionalGeneration(config)
    model.to(torch.bfloat16)  # pyright: ignore[reportArgumentType]
    model.save_pretrained(folder)
    return folder, sum(parameter.nbytes for parameter in model.parameters())


@pytest.mark.slow
def test_ranks_share_the_mapped_weights_until_they_are_on_the_device(gemma: tuple[Path, int]) -> None:
    folder, size = gemma
    ranks = json.loads(run_on_ranks(RANK, 2, str(folder)))
    print(f"{size / 1e6:.0f} MB of weights; {ranks}")
    assert ranks[0]["digest"] == ranks[1]["digest"]
    for rank in ranks:
        assert rank["dtypes"] == ["torch.bfloat16", "torch.float32"]  # the VAE stays frozen
        assert rank["peak"] < 0.3 * size
        assert rank["private"] < 0.3 * size
