"""TheWorld: Gemma 3 with world tokens of the Cosmos VAE, trained with MosaicML Composer and Streaming.

The public names are imported when first used, so that importing the package costs no torch. Training is
:func:`theworld.train.run.train`, the audit :func:`theworld.audit.audit`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from theworld.config.load import load_config
    from theworld.config.schema import Config
    from theworld.errors import UserError
    from theworld.model.auto import TheWorldConfig, TheWorldForConditionalGeneration, TheWorldProcessor
    from theworld.model.build import load_model, load_processor

_HOMES = {
    "load_config": "theworld.config.load",
    "Config": "theworld.config.schema",
    "UserError": "theworld.errors",
    "TheWorldConfig": "theworld.model.auto",
    "TheWorldForConditionalGeneration": "theworld.model.auto",
    "TheWorldProcessor": "theworld.model.auto",
    "load_model": "theworld.model.build",
    "load_processor": "theworld.model.build",
}

__version__ = "0.1.0"
__all__ = [
    "Config",
    "TheWorldConfig",
    "TheWorldForConditionalGeneration",
    "TheWorldProcessor",
    "UserError",
    "load_config",
    "load_model",
    "load_processor",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
