"""The commands: scripts and console commands run the same code, explain every key and refuse what they do not know."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from theworld.config.describe import describe_keys, markdown_table
from theworld.config.load import known_keys

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = [path for folder in ("convert", "recipes") for path in sorted((ROOT / folder).glob("*.py"))]
OF_THE_CHECKOUT = {"demo"}
"""Scripts that make sense in a checkout only."""
CONSOLE = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
OTHER_NAMES = {"status": "theworld-data-status", "run_status": "theworld-status"}
OTHER_MODULES = {"recipes/status.py": "run_status"}
"""Scripts whose command's module has another name: convert/ has one of the same name."""
READS = {
    "to_mds": "convert.images",
    "download_openimages": "download.workers",
    "status": "download.list",
    "add_latents": "model.cosmos",
    "train": "train_loader.dataset.max_seq_len",
}
"""Command to a key whose meaning its --help tells."""


def module_of(path: Path) -> str:
    return OTHER_MODULES.get(str(path.relative_to(ROOT)), path.stem)


def script(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = next(path for path in SCRIPTS if module_of(path) == name)
    return subprocess.run([sys.executable, str(path), *arguments], capture_output=True, text=True, check=False)


COMMANDS = [module_of(path) for path in SCRIPTS if path.stem not in OF_THE_CHECKOUT]


@pytest.mark.parametrize("name", COMMANDS)
def test_script_and_console_command_are_one(name: str) -> None:
    console = OTHER_NAMES.get(name, f"theworld-{name.replace('_', '-')}")
    assert CONSOLE[console] == f"theworld.commands.{name}:command"
    assert callable(import_module(f"theworld.commands.{name}").command)
    (path,) = (path for path in SCRIPTS if module_of(path) == name)
    assert f"from theworld.commands.{name} import command" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_and_refusal(name: str) -> None:
    shown = script(name, "--help")
    assert (shown.returncode, shown.stderr) == (0, "")
    if name in READS:
        (key,) = (key for key in describe_keys() if key.name == READS[name])
        assert f"  {key.name}: {key.type} = {key.default}\n" in shown.stdout
        assert key.meaning in re.sub(r"\s+", " ", shown.stdout)
    refused = script(name, "--no-such-option")
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: ")
    assert refused.stderr.count("\n") == 1


@pytest.mark.parametrize("console", ["theworld-convert", "theworld-to-mds"])
def test_an_installations_command_has_the_scripts_help_under_its_own_name(console: str) -> None:
    installed = Path(sys.executable).parent / console
    shown = subprocess.run([str(installed), "--help"], capture_output=True, text=True, check=True)
    assert f"usage: {console} " in shown.stdout
    assert f"Raw files to MDS: {console} [YAML]" in shown.stdout
    called = script("to_mds", "--help").stdout
    assert "usage: convert/to_mds.py " in called
    own = shown.stdout.replace(console, "convert/to_mds.py")
    # The usage is wrapped by its length.
    assert own.split() == called.replace("python convert", "convert").split()
    refused = subprocess.run([str(installed), "--no-such-option"], capture_output=True, text=True, check=False)
    assert refused.stderr.startswith(f"error: {console}: ")


def test_the_trainers_console_command_tells_of_no_launcher(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from theworld.commands.train import command

    monkeypatch.setattr(sys, "argv", ["/usr/bin/theworld-train", "--help"])
    assert command() == 0
    shown = capsys.readouterr().out
    assert shown.startswith("usage: theworld-train ")
    assert "    theworld-train YAML [key=value ...]\n" in shown
    assert "recipes/train.py" not in shown


def test_every_key_is_explained_and_the_page_is_the_schemas() -> None:
    keys = list(describe_keys())
    assert [key.name for key in keys if not key.meaning] == []
    sections = {"download", "convert", "model", "train_loader", "hub", "preemption"}
    sections |= {"model.projector", "model.freeze", "train_loader.dataset"}
    assert {key.name for key in keys} == set(known_keys()) - sections
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert markdown_table(iter(keys)) in page, "run python -m theworld.config and put its table into the page"
