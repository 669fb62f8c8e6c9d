"""Conditions on the values of tensors, checked without waiting for the GPU."""

from __future__ import annotations

import torch
from torch import Tensor


def require(condition: Tensor, message: str) -> None:
    """Refuse inputs whose values do not meet ``condition``, a boolean scalar.

    On a GPU the host goes on at once: reading the condition would wait until all that was queued before has run.
    There, and in compiled code, torch's own assertion stops the process when the condition is reached.

    Raises:
        ValueError: on a CPU, with ``message``.
    """
    if condition.device.type != "cpu" or torch.compiler.is_compiling():
        torch._assert_async(condition, message)  # pyright: ignore[reportPrivateImportUsage]
    elif not condition:
        raise ValueError(message)
