"""Importing this module makes TheWorld known to transformers' Auto classes.

Afterwards ``AutoConfig``, ``AutoModelForImageTextToText`` and ``AutoProcessor`` load a saved TheWorld.
"""

from __future__ import annotations

from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from theworld.model.configuration import TheWorldConfig
from theworld.model.modeling import TheWorldForConditionalGeneration
from theworld.model.processing import TheWorldProcessor

AutoConfig.register(TheWorldConfig.model_type, TheWorldConfig)
AutoModelForImageTextToText.register(TheWorldConfig, TheWorldForConditionalGeneration)
AutoProcessor.register(TheWorldConfig, TheWorldProcessor)

__all__ = ["TheWorldConfig", "TheWorldForConditionalGeneration", "TheWorldProcessor"]
