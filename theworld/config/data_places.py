"""The data sets that a loader names, one or several, as the rest of the recipe asks for them."""

from __future__ import annotations

from dataclasses import dataclass

from theworld.config.schema import LoaderConfig, SourceConfig

RULES = ("repeat", "choose", "proportion")


@dataclass(frozen=True)
class NamedPlace:
    """A data set and where it lies."""

    name: str
    """Empty, if it is the only one."""
    remote: str | None
    local: str | None
    split: str | None
    rule: str = "repeat"
    value: float = 1
    world: bool = True

    @property
    def origin(self) -> str | None:
        """Folder or URL, split included; None if the configuration names none."""
        where = self.remote or self.local
        return where if where is None or not self.split else f"{where.rstrip('/')}/{self.split}"


def given_rule(source: SourceConfig) -> str:
    """Which of the rules a source has; repeat if it names none."""
    return next((rule for rule in RULES if getattr(source, rule) is not None), RULES[0])


def places_of(loader: LoaderConfig) -> list[NamedPlace]:
    """The data sets of a loader; the only one has no name."""
    if loader.datasets is None:
        dataset = loader.dataset
        return [NamedPlace("", dataset.remote, dataset.local, dataset.split)]
    found = []
    for one in loader.datasets:
        rule = given_rule(one)
        value = getattr(one, rule)
        value = 1 if value is None else value
        found.append(NamedPlace(one.name, one.remote, one.local, one.split, rule, value, one.world))
    return found
