"""The moving average of the weights (Composer's EMA) in a checkpoint.

Composer keeps the average among the algorithms' state and the weights that train as the model's, or, where its
``ema_weights_active`` is true, the other way round; from either a run goes on.
"""

from __future__ import annotations

from typing import Any

NAME = "EMA"
WRAPPED = "module."
"""Before names of a model that DDP has wrapped."""


def take_average(state: dict[str, Any]) -> bool:
    """Let the model's weights be the average, and what was the average be the weights that train.

    Args:
        state: of a checkpoint, ``model`` included; changed in place.

    Returns:
        Whether there is an average, which may have been the model's already.
    """
    for name, kept in algorithms_of(state):
        if name != NAME or not kept.get("ema_started"):
            continue
        if not kept.get("ema_weights_active"):
            averages, model = kept["ema_model"]["named_parameters_dict"], state["model"]
            for key in averages:
                own = key.removeprefix(WRAPPED)
                model[own], averages[key] = averages[key], model[own]
            kept["ema_weights_active"] = True
        return True
    return False


def algorithms_of(state: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Names and states of the algorithms."""
    return [(str(name), kept) for name, kept in state.get("algorithms") or () if isinstance(kept, dict)]
