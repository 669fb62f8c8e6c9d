"""What loading a model costs each rank of a machine."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

SECONDS = 600

SCRIPT = """
import hashlib, json, sys
from pathlib import Path

import torch

from theworld.config.schema import FreezeConfig, ModelConfig
from theworld.model import load_model

def read(file, key):
    lines = Path("/proc/self", file).read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(key + ":"))

def load(gemma, cosmos, trains, device=None):
    freeze = FreezeConfig(vision=not trains, language=not trains)
    cfg = ModelConfig(gemma=gemma, cosmos=cosmos, world_image_size=64, freeze=freeze)
    return load_model(cfg, frozen_dtype=torch.bfloat16, device=device)

def digest(model):
    made = hashlib.sha256()
    for name, weight in model.state_dict().items():
        made.update(name.encode())
        made.update(weight.contiguous().view(torch.uint8).numpy().data)
    return made.hexdigest()

load("builtin:tiny", "builtin:tiny", True)  # what is imported and allocated once
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
found = {"peak": -read("status", "VmHWM")}
# As it goes to a GPU: a device whose memory is not the machine's. Nothing may be read or cast before.
elsewhere = load(*sys.argv[1:], True, torch.device("meta"))
found["peak"] += read("status", "VmHWM")
found["dtypes"] = sorted({str(weight.dtype) for weight in elsewhere.parameters()})
found["private"] = -read("smaps_rollup", "Anonymous")
frozen = load(*sys.argv[1:], False)
found["private"] += read("smaps_rollup", "Anonymous")
found["weights"] = sum(weight.nbytes for weight in frozen.parameters())
found["digest"] = digest(frozen)
print(json.dumps(found))
"""


def loaded_by_ranks(ranks: int, gemma: str, cosmos: str) -> list[dict[str, Any]]:
    """Each rank loads a model to train, for a device with its own memory, and a frozen one, which stays.

    Returns:
        For each rank: ``peak`` bytes of the first, which count mapped pages too; ``dtypes`` of its weights;
        ``private`` bytes of the second, which no other process shares; bytes and ``digest`` of its ``weights``.
    """
    # Side by side, as ranks load, but without a process group: what one maps and keeps has nothing to do with it.
    command = [sys.executable, "-c", SCRIPT, gemma, cosmos]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(ranks)]
    try:
        printed = [run.communicate(timeout=SECONDS)[0] for run in runs]
    finally:
        for run in runs:
            run.kill()
    assert [run.returncode for run in runs] == [0] * ranks
    return [json.loads(text) for text in printed]
