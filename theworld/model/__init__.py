"""The model: Gemma 3 with tokens of the world from the Cosmos VAE.

Names are imported when first used: transformers and torch take seconds, and checking a configuration needs neither.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from theworld.model.auto import TheWorldConfig, TheWorldForConditionalGeneration, TheWorldProcessor
    from theworld.model.build import apply_freezing, load_model, load_processor
    from theworld.model.check_model import check_model_config
    from theworld.model.modeling import TheWorldOutput

_HOMES = {
    "TheWorldConfig": "auto",
    "TheWorldForConditionalGeneration": "auto",
    "TheWorldProcessor": "auto",
    "TheWorldOutput": "modeling",
    "apply_freezing": "build",
    "load_model": "build",
    "load_processor": "build",
    "check_model_config": "check",
}

__all__ = [
    "TheWorldConfig",
    "TheWorldForConditionalGeneration",
    "TheWorldOutput",
    "TheWorldProcessor",
    "apply_freezing",
    "check_model_config",
    "load_model",
    "load_processor",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
