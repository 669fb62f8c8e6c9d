"""Random weights in the released models' shapes, written as the released files are: old names, two files, bfloat16.

They are written piece by piece, so that 8.6 GB take no memory; what loads them maps the files.
"""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

BF16 = 2
LARGEST_FILE = 5_000_000_000
NOISE = 8_000_009
"""Random numbers that all weights are made of, each from another place on."""
SPREAD = 0.02
GEMMA_BYTES = 8_600_000_000
"""Of Gemma 3 4B; the VAE of Cosmos has another half GB."""


def write_gemma_weights(folder: Path) -> int:
    """Write weights for the ``config.json`` of a folder, and their index.

    Returns:
        Their bytes.
    """
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    with torch.device("meta"):
        model = Gemma3ForConditionalGeneration(Gemma3Config.from_pretrained(folder))
    shapes = {name: value for name, value in model.state_dict().items() if name != "lm_head.weight"}  # it is tied
    files: list[list[str]] = [[]]
    size = 0
    for name, shape in shapes.items():
        if size + shape.numel() * BF16 > LARGEST_FILE:
            files.append([])
            size = 0
        files[-1].append(name)
        size += shape.numel() * BF16
    noise = (torch.randn(NOISE, generator=torch.Generator().manual_seed(11)) * SPREAD).to(torch.bfloat16)
    index = {}
    for number, names in enumerate(files, 1):
        file = f"model-{number:05}-of-{len(files):05}.safetensors"
        write_file(folder / file, {name: shapes[name] for name in names}, noise)
        index |= {released_name(name): file for name in names}
    total = sum(shape.numel() * BF16 for shape in shapes.values())
    listed = {"metadata": {"total_size": total}, "weight_map": index}
    (folder / "model.safetensors.index.json").write_text(json.dumps(listed))
    return total


def released_name(name: str) -> str:
    """What the released files call a parameter: they are older than the class's names."""
    inner = name.removeprefix("model.")
    part, _, rest = inner.partition(".")
    return f"{part}.model.{rest}" if part == "language_model" else inner


def write_file(path: Path, shapes: dict[str, Tensor], noise: Tensor) -> None:
    """A safetensors file: the length of its header, the header, the tensors in its order."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    place = 0
    for name, shape in shapes.items():
        end = place + shape.numel() * BF16
        header[released_name(name)] = {"dtype": "BF16", "shape": list(shape.shape), "data_offsets": [place, end]}
        place = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for number, (name, shape) in enumerate(shapes.items()):
            write_values(file, name, shape.numel(), number, noise)


def write_values(file: BinaryIO, name: str, count: int, number: int, noise: Tensor) -> None:
    """One tensor. Norms do nothing: Gemma's scale by one plus the weight, SigLIP's by the weight."""
    if "norm" in name and name.endswith("weight"):
        values = torch.full((count,), float("vision_tower" in name), dtype=torch.bfloat16)
        file.write(values.view(torch.uint8).numpy().data)
        return
    start = number * 104_729 % (NOISE // 2)
    piece = noise[start:].view(torch.uint8).numpy()
    for _ in range(math.ceil(count * BF16 / len(piece)) - 1):
        file.write(piece.data)
    left = count * BF16 - (math.ceil(count * BF16 / len(piece)) - 1) * len(piece)
    file.write(piece[:left].data)


def write_vae_weights(folder: Path) -> None:
    """The VAE of Cosmos' shape with new weights, into a folder that has its configuration already."""
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

    torch.manual_seed(12)
    AutoencoderKLWan().save_pretrained(folder)
