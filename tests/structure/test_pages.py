"""What the pages say is there: messages that the code prints, files, keys, commands that their parsers take."""

from __future__ import annotations

import re
import shlex
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from theworld import cli
from theworld.config.load import known_keys
from theworld.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
PLACEHOLDER = re.compile(r"\b(?:[A-Z]|KEY|\d+)\b|\.\.\.|\(reason\)")
"""In a quoted message: what stands for a value."""
KEY = re.compile(r"([a-z_][\w.]*)=")


def source() -> str:
    """All of the package and the job scripts, strings that are written over several lines joined."""
    files = [*(ROOT / "theworld").rglob("*.py"), *(ROOT / "slurm").iterdir()]
    text = "\n".join(path.read_text(encoding="utf-8") for path in files if path.is_file())
    return re.sub(r"[\"']\n\s*f?[\"']", "", text)


def quoted_messages() -> list[str]:
    """What the first columns of docs/troubleshooting.md quote."""
    rows = re.findall(r"^\| (.+?) \|", (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8"), re.M)
    return [quote for row in rows for quote in re.findall(r"`([^`]+)`", row)]


@pytest.mark.parametrize("message", quoted_messages())
def test_a_message_that_is_explained_is_one_that_is_printed(message: str) -> None:
    parts = [part.strip(" :`;,()") for part in PLACEHOLDER.split(message)]
    for part in (part for part in parts if len(part) > 2):
        assert part in source() or part.lower() in source().lower(), f"nothing prints {part!r}"


def code_blocks(page: Path) -> list[str]:
    """The commands in a page's bash blocks, a line each, continued lines joined, comments off."""
    blocks = re.findall(r"^```bash\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in (re.sub(r"\s+#.*", "", line).strip() for line in lines) if line and line[0] != "#"]


def calls() -> list[tuple[str, str]]:
    """Page and command of each call of a script of this project."""
    found = [(page.name, line) for page in PAGES for line in code_blocks(page)]
    return [(page, line) for page, line in found if re.search(r"\b(?:convert|recipes)/\w+\.py", line)]


def test_the_pages_have_commands() -> None:
    assert len(calls()) > 15


@pytest.mark.parametrize(("page", "line"), calls())
def test_a_command_in_a_page_is_one_that_its_parser_takes(
    page: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parsed by the command's own parser, and its keys looked for in the schema; what it would do is not done."""
    script = re.search(r"\b(convert|recipes)/(\w+)\.py", line)
    assert script is not None
    assert (ROOT / script[0]).is_file()
    words = [word for word in shlex.split(line[script.end() :]) if word != "..."]
    for key in (found[1] for found in map(KEY.match, words) if found is not None):
        assert any(f"{one}.".startswith(f"{key}.") or f"{key}.".startswith(f"{one}.") for one in known_keys()), key
    if script[2] == "demo":
        return  # takes a folder, by hand
    name = script[2] if script[0] != "recipes/status.py" else "run_status"
    try:
        parser_of(import_module(f"theworld.commands.{name}"), monkeypatch).parse(words)
    except UserError as error:
        pytest.fail(f"{page}: {line}: {error}")


class ParserBuilt(Exception):
    """Carries the parser out of a command that has just built it."""


def parser_of(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> cli.Parser:
    """The parser that a command builds, taken when it is about to parse."""

    def stop(self: cli.Parser, argv: object) -> None:
        raise ParserBuilt(self)

    with monkeypatch.context() as patched:
        patched.setattr(cli.Parser, "parse", stop)
        with pytest.raises(ParserBuilt) as built:
            module.main([])
    return built.value.args[0]


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[\w-]+)?\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name in navigation
