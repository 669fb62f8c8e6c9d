"""The parts of the model as ``model.freeze`` and ``optimizer.groups`` name them, and what belongs to each."""

from __future__ import annotations

from theworld.config.schema import ModelConfig

MODULES = {
    "world_projector": "projector",
    "vision_tower": "vision",
    "multi_modal_projector": "vision",
    "language_model": "language",
    "lm_head": "language",
    "world_encoder": "vae",
}
"""Module -> its part. The learned start and end of the world are the projector's. World tokens have no rows of the
embedding that train: those rows, and the output head that shares them, are the language model's like all others."""
PARTS = tuple(dict.fromkeys(MODULES.values()))


def part_of(weight: str) -> str:
    """The part that a weight belongs to, by its name."""
    return next(MODULES[name] for name in weight.split(".") if name in MODULES)


def parts_that_train(config: ModelConfig) -> frozenset[str]:
    """Those that the section ``model`` leaves to train, or that have adapters."""
    freeze = config.freeze
    frozen = {"vision": freeze.vision, "language": freeze.language}
    if config.enable_world:
        frozen |= {"projector": freeze.projector, "vae": freeze.vae}
    adapted = config.lora.parts if config.lora is not None else ()
    return frozenset(part for part, is_frozen in frozen.items() if not is_frozen or part in adapted)
