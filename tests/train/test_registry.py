"""The doors of the YAML: every class of Composer has a name or a reason, and a user's own classes are found."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from composer import algorithms, callbacks, loggers, optim
from composer.core import Algorithm, Callback
from composer.loggers import LoggerDestination

from theworld.config.schema import Config
from theworld.errors import UserError
from theworld.own_code import add_code_paths
from theworld.train import registry


def members(module: Any, base: type) -> Iterator[str]:
    for name in module.__all__:
        kind = getattr(module, name)
        if inspect.isclass(kind) and issubclass(kind, base) and kind is not base:
            yield name


@pytest.mark.parametrize(
    ("module", "base", "table", "others"),
    [
        (callbacks, Callback, registry.CALLBACKS, 6),
        (algorithms, Algorithm, registry.ALGORITHMS, 21),
        (loggers, LoggerDestination, registry.LOGGERS, 3),
        (optim, optim.ComposerScheduler, registry.SCHEDULERS, 0),
    ],
)
def test_every_class_of_composer_has_a_name_or_a_reason(module: Any, base: type, table: Any, others: int) -> None:
    # One of this project that extends Composer's stands for it.
    usable = {kind.__name__ for build in table.values() if not isinstance(build, str) for kind in build.__mro__}
    refused = [reason for reason in table.values() if isinstance(reason, str)]
    left = set(members(module, base)) - usable
    assert len(left) <= len(refused) == others, sorted(left)


def test_those_that_touch_samples_or_checkpoints_are_refused_with_the_reason() -> None:
    with pytest.raises(UserError, match="selective_backprop is not for this trainer: it drops"):
        registry.lookup(registry.ALGORITHMS, "algorithms", "selective_backprop")
    with pytest.raises(UserError, match="save_interval"):
        registry.lookup(registry.CALLBACKS, "callbacks", "checkpoint_saver")


def test_a_wrong_name_lists_near_ones() -> None:
    with pytest.raises(UserError, match="did you mean speed_monitor"):
        registry.lookup(registry.CALLBACKS, "callbacks", "sped_monitor")


def config(**changes: Any) -> Config:
    return Config(run_name="x", global_train_batch_size=1, **changes)


def test_own_class_from_a_file_and_from_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    source = "from composer.core import Callback\n\n\nclass Mine(Callback):\n    def __init__(self, every=1):\n"
    (tmp_path / "own_callback_file.py").write_text(source + "        self.every = every\n")
    package = tmp_path / "folder" / "own_package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "part.py").write_text(source + "        self.every = every\n")
    names = {"own_callback_file:Mine": {"every": 3}, "own_package.part:Mine": {}}
    paths = [str(tmp_path / "own_callback_file.py"), str(tmp_path / "folder")]
    registry.check_names(config(callbacks=names, code_paths=paths))
    built = registry.construct_named(registry.CALLBACKS, "callbacks", names)
    assert [item.every for item in built] == [3, 1]
    with pytest.raises(UserError, match="evry: unknown setting"):
        registry.construct_named(registry.CALLBACKS, "callbacks", {"own_callback_file:Mine": {"evry": 3}})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"callbacks": {"no.such.module:Mine": {}}}, "callbacks: no.such.module:Mine: No module named 'no'"),
        ({"callbacks": {"json:Mine": {}}}, "has no attribute 'Mine'"),
        ({"callbacks": {"json:__doc__": {}}}, "is not a class or function"),
        ({"code_paths": ["nowhere"]}, "code_paths: nowhere: neither a folder nor a Python file"),
        ({"optimizer": {"name": "adamm"}}, "optimizer.name: 'adamm' is not known; did you mean"),
        ({"scheduler": {"name": "cosin"}}, "scheduler.name: 'cosin' is not known; did you mean cosine"),
        ({"loggers": {"tensorbord": {}}}, "did you mean tensorboard"),
    ],
)
def test_bad_names_are_one_line(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError, match=expected) as raised:
        registry.check_names(config(**changes))
    assert "\n" not in str(raised.value)


def test_code_that_fails_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "own_broken.py").write_text("1 / 0\n")
    with pytest.raises(UserError, match=r"own_broken\.py: ZeroDivisionError: division by zero"):
        add_code_paths([str(tmp_path / "own_broken.py")])
