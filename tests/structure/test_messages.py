"""Every error and warning has its entry in docs/messages.md, and the page is what the source says."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from theworld.commands import preview
from theworld.config.load import load_config
from theworld.errors import UserError
from theworld.synthetic.write_sample import generate

DOCS = Path(__file__).resolve().parents[2] / "docs"
PLACEHOLDER = re.compile(r"[A-Z]{1}[A-Z_]*(?![a-z])|\.\.\.")


@pytest.fixture(scope="module")
def messages() -> ModuleType:
    specification = importlib.util.spec_from_file_location("messages_page", DOCS / "messages.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module  # where dataclasses look for it
    specification.loader.exec_module(module)
    return module


def test_every_message_has_its_entry_and_every_entry_its_message(messages: ModuleType) -> None:
    parts, elsewhere = messages.read_parts()
    assert messages.sort_in(messages.Source(), parts, elsewhere) == []
    page = (DOCS / "messages.md").read_text(encoding="utf-8")
    assert messages.page(parts) == page, "run python docs/messages.py"


MODULE = '''
"""An error stands here: not a message."""
from theworld.errors import NotNow
WHERE = "the shelf"
class Worse(NotNow):
    pass
def find(log, books, error):
    if not books:
        raise Worse(f"{WHERE}: nothing on it since {books.last} ({error})")
    log.warning("%s: %d of %d books are damp", WHERE, len(books), books.count)
    raise NotNow(told(books))
def told(books):
    return f"no book called {books[0]} is there" if books else "no book at all"
def lose(error):
    raise NotNow(str(error))
'''


def test_messages_are_found_whatever_their_form(messages: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "errors.py").write_text(
        "class UserError(Exception):\n    exit_code = EXIT_BAD_INPUT\n"
        "class NotNow(UserError):\n    exit_code = EXIT_RUN_AGAIN\n"
    )
    (tmp_path / "shelf.py").write_text(MODULE)
    source = messages.Source(tmp_path)
    assert {(one.place, one.text, one.tag) for one in messages.messages_of(source)} == {
        ("shelf.py:find", "the shelf: nothing on it since LAST (REASON)", "exit code 75"),
        ("shelf.py:find", "the shelf: N of COUNT books are damp", "warning"),
        ("shelf.py:find", "no book called BOOKS is there", "exit code 75"),
        ("shelf.py:find", "no book at all", "exit code 75"),
        ("shelf.py:lose", "", "exit code 75"),
    }
    topic = messages.Topic("Books", "Read them.", ["shelf.py:tidy"])
    faults = messages.sort_in(source, [("Library", [topic])], {"shelf.py:gone": "with its reader"})
    assert "shelf.py:find: no topic in docs/messages.yaml: the shelf: N of COUNT books are damp" in faults
    assert any(fault.startswith("shelf.py:lose: its text is not written there") for fault in faults)
    for place in ("shelf.py:tidy", "shelf.py:gone"):
        assert f"docs/messages.yaml: nothing comes from {place}" in faults
    assert "docs/messages.yaml: Books: no message or no text" in faults


REAL: list[Callable[[Path], object]] = [
    lambda folder: load_config([str(folder / "none.yaml")]),
    lambda folder: load_config(["yamls/smoke.yaml", "save_foldr=x"]),
    lambda folder: preview.main([str(folder / "none")]),
    lambda folder: preview.main([str(folder), "--samples", "0"]),
    lambda folder: generate(folder, 0),
]


@pytest.mark.parametrize("fails", REAL)
def test_a_line_that_is_printed_is_found_on_the_page(fails: Callable[[Path], object], tmp_path: Path) -> None:
    with pytest.raises(UserError) as raised:
        fails(tmp_path)
    page = (DOCS / "messages.md").read_text(encoding="utf-8")
    entries = [PLACEHOLDER.split(entry) for entry in re.findall(r"^- `(.+?)`", page, re.M)]
    patterns = [".+".join(map(re.escape, parts)) for parts in entries if max(map(len, parts)) > 8]
    assert any(re.search(pattern, str(raised.value)) for pattern in patterns), raised.value
