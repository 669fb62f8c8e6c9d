"""The released models' shapes without their weights or their tokenizer: what estimates and wiring are tested on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch

from theworld.model.tiny import tiny_folder

GEMMA_4B = {
    "dtype": "bfloat16",
    "text_config": {
        "model_type": "gemma3_text",
        "vocab_size": 262208,
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "num_hidden_layers": 34,
        "sliding_window": 1024,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
    },
    "vision_config": {
        "model_type": "siglip_vision_model",
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
        "image_size": 896,
        "patch_size": 14,
        "vision_use_head": False,
    },
    "mm_tokens_per_image": 256,
}


def write_real_shapes(folder: Path) -> list[str]:
    """Write the configurations of Gemma 3 4B and the Cosmos VAE; the overrides that name them.

    The tokenizer is the tiny model's, so that nothing is fetched; the embedding has the real one's rows.
    """
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

    gemma, cosmos = folder / "gemma", folder / "cosmos"
    shutil.copytree(tiny_folder() / "gemma", gemma, ignore=shutil.ignore_patterns("*.safetensors"))
    settings = json.loads((gemma / "config.json").read_text())
    (gemma / "config.json").write_text(json.dumps({**settings, **GEMMA_4B}))
    with torch.device("meta"):
        AutoencoderKLWan().save_config(cosmos / "vae")
    return [f"model.gemma={gemma}", f"model.cosmos={cosmos}"]
