"""Does the world help? The same training with one thing changed at a time, planned as commands."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from theworld.config.load import load_config, read_yaml
from theworld.config.schema import Config
from theworld.errors import UserError

COMPOSER = str(Path(sys.executable).with_name("composer"))


@dataclass(frozen=True)
class Variant:
    """One training that is compared with the others.

    Attributes:
        name: of its YAML, and of its save folder below the run's.
        arguments: YAML and ``key=value`` of its training.
        config: what these say.
    """

    name: str
    arguments: tuple[str, ...]
    config: Config

    @property
    def model(self) -> str:
        """What is evaluated: its save folder; or Gemma as it is, where nothing would train."""
        return str(self.config.save_folder) if self.trains else self.config.model.gemma

    @property
    def trains(self) -> bool:
        """Whether there is anything to train."""
        model = self.config.model
        return model.enable_world or model.lora is not None or not (model.freeze.vision and model.freeze.language)

    @property
    def worlds(self) -> tuple[str, ...]:
        """What it is evaluated with, as ``recipes/evaluate.py --world`` names it: as it was trained; and what was
        trained on its own worlds also on other pictures', since a model that reads its world must suffer from that."""
        if not self.config.model.enable_world:
            return ("on",)
        return ("shuffled",) if self.config.train_loader.world == "shuffled" else ("on", "shuffled")


@dataclass(frozen=True)
class Evaluation:
    """One line of the table: a variant, asked with some worlds."""

    name: str
    command: tuple[str, ...]
    report: Path


def variants_of(arguments: Sequence[str], folder: Path) -> list[Variant]:
    """The trainings of an ablation.

    Args:
        arguments: YAML and ``key=value`` that all of them share.
        folder: small YAMLs, one a variant, with the keys that it changes; in the order of their names.

    Raises:
        UserError: no variants, or one that is not a YAML of this project.
    """
    files = sorted(folder.glob("*.yaml"))
    if not files:
        raise UserError(f"{folder}: no *.yaml, so no variants; the shipped ones are in yamls/ablation")
    shared = load_config(arguments)
    if shared.save_folder is None:
        raise UserError("save_folder: not set; the variants are saved below it")
    if shared.stages:
        raise UserError("stages: an ablation compares single trainings; give max_duration and model.freeze at the top")
    found = []
    for file in files:
        own = [
            f"run_name={shared.run_name}-{file.stem}",
            f"save_folder={Path(shared.save_folder) / file.stem}",
            *dotted(read_yaml(str(file))),
        ]
        if shared.eval_loader is None:
            own = [setting for setting in own if not setting.startswith("eval_loader.")]
        found.append(Variant(file.stem, (*arguments, *own), load_config([*arguments, *own])))
    return found


def dotted(section: Any, prefix: str = "") -> Iterator[str]:
    """``key=value`` of everything in a YAML."""
    for name, value in section.items():
        if hasattr(value, "items"):
            yield from dotted(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}={value if isinstance(value, str) else json.dumps(value)}"


def launched(script: str, ranks: int) -> tuple[str, ...]:
    """The command that starts a script in so many ranks."""
    return (sys.executable, script) if ranks == 1 else (COMPOSER, "-n", str(ranks), script)


def training(variant: Variant, ranks: int) -> tuple[str, ...]:
    """The command that trains a variant, or goes on with it, or says that it is finished."""
    return (*launched("recipes/train.py", ranks), *variant.arguments)


def evaluations(variants: Sequence[Variant], asked: Sequence[str], out: Path, ranks: int) -> list[Evaluation]:
    """The evaluations of all variants, in the table's order.

    Args:
        variants: trained.
        asked: options of ``recipes/evaluate.py`` that all share: the benchmark and its data.
        out: folder for answers and reports.
        ranks: processes that share the questions.
    """
    found = []
    for variant in variants:
        for world in variant.worlds:
            trained_so = world == variant.worlds[0]
            name = variant.name if trained_so else f"{variant.name}, asked with {world} worlds"
            report = out / f"{variant.name}-{world}.json"
            options = ("--world", world, "--out", str(out), "--json", str(report), *asked)
            found.append(Evaluation(name, (*launched("recipes/evaluate.py", ranks), variant.model, *options), report))
    return found
