"""``optimizer.groups``: a learning rate and more for each part of the model, under one schedule.

A scheduler of Composer gives one factor, and torch multiplies each group's own rate by it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from theworld.model.parts import PARTS, part_of
from theworld.train.callbacks.group_rates import NAME, NO_DECAY
from theworld.train.check_optimizer_groups import DECAY, GROUPS


def has_groups(settings: Mapping[str, Any]) -> bool:
    """Whether the section ``optimizer`` wants more than one group of all that trains."""
    return any(own is not None for own in (settings.get(GROUPS) or {}).values()) or not settings.get(DECAY, True)


def parameter_groups(settings: Mapping[str, Any], model: nn.Module) -> list[dict[str, Any]] | list[nn.Parameter]:
    """What trains, as torch's optimizers take it: one list, or a group for each part.

    Args:
        settings: the section ``optimizer``.
        model: freezing applied.

    Returns:
        Parameters; or groups with a ``name``: the part's, with :data:`NO_DECAY` for its norms and biases where these
        are not to decay. A part that has no settings of its own gets the optimizer's.
    """
    trained = {name: one for name, one in model.named_parameters() if one.requires_grad}
    if not has_groups(settings):
        return list(trained.values())
    spared = set() if settings.get(DECAY, True) else norms_and_biases(model)
    members: dict[str, list[nn.Parameter]] = {}
    for name, parameter in trained.items():
        members.setdefault(part_of(name) + (NO_DECAY if name in spared else ""), []).append(parameter)
    return [{NAME: name, "params": members[name], **group_settings(settings, name)} for name in ordered(members)]


def group_settings(settings: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The settings of one group that are not the optimizer's."""
    own = dict((settings.get(GROUPS) or {}).get(name.removesuffix(NO_DECAY)) or {})
    return {**own, "weight_decay": 0.0} if name.endswith(NO_DECAY) else own


def ordered(names: Iterable[str]) -> list[str]:
    """Groups in the order of the parts, the same at each start."""
    return sorted(names, key=lambda name: (PARTS.index(name.removesuffix(NO_DECAY)), name))


def group_names(settings: Mapping[str, Any], model: nn.Module) -> list[str]:
    """The names of the groups; none where there is one of everything."""
    return [group[NAME] for group in parameter_groups(settings, model) if isinstance(group, dict)]


def norms_and_biases(model: nn.Module) -> set[str]:
    """Names of the biases, and of all weights of normalisation layers, whatever library those are from."""
    found = set()
    for prefix, module in model.named_modules():
        is_norm = "norm" in type(module).__name__.lower()
        own = (name for name, _ in module.named_parameters(recurse=False))
        found |= {f"{prefix}.{name}" for name in own if is_norm or name == "bias"}
    return found
