"""docs/trainer-surface.md names what is used of Composer and Streaming, no more and no less."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "trainer-surface.md"
LIBRARIES = ("composer", "streaming")
CODE = re.compile(r"`([^`]+)`")
Imports = dict[str, tuple[str, str]]
"""Name in a file -> module and name there."""


def sources() -> Iterator[tuple[str, ast.Module, Imports]]:
    """Files that import one of the two, by their path in the repo."""
    for folder in ("theworld", "recipes", "convert"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            found: Imports = {}
            for node in ast.walk(tree):
                assert not isinstance(node, ast.Import) or not any(
                    one.name.partition(".")[0] in LIBRARIES for one in node.names
                ), f"{path}: import the names, so that the page can be checked"
                if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in LIBRARIES:
                    found |= {one.asname or one.name: (str(node.module), one.name) for one in node.names}
            if found:
                yield path.relative_to(ROOT).as_posix(), tree, found


def room(path: str) -> str:
    """The package of a file: ``theworld/data``; of a module directly in ``theworld`` the module."""
    return "/".join(path.split("/")[:2])


def private_uses(tree: ast.Module, imports: Imports) -> Iterator[str]:
    """Private names that are reached for on another object, or overridden."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            if not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")):
                yield node.attr
        elif isinstance(node, ast.ClassDef):
            bases = [imports[base.id] for base in node.bases if isinstance(base, ast.Name) and base.id in imports]
            own = [one.name for one in node.body if isinstance(one, ast.FunctionDef) and is_private(one.name)]
            for module, name in bases:
                base = getattr(import_module(module), name)
                yield from (method for method in own if hasattr(base, method))


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def rows(title: str) -> list[list[str]]:
    """The cells of a section's table."""
    section = PAGE.read_text(encoding="utf-8").partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    assert lines, f"no table under {title}"
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_page_names_every_import() -> None:
    names: dict[str, set[str]] = defaultdict(set)
    places: dict[str, set[str]] = defaultdict(set)
    for path, _, imports in sources():
        for module, name in imports.values():
            names[module].add(name)
            places[module].add(room(path))
    told = {CODE.findall(row[0])[0]: row for row in rows("Names")}
    assert {module: set(CODE.findall(row[1])) for module, row in told.items()} == dict(names)
    assert {module: set(CODE.findall(row[2])) for module, row in told.items()} == dict(places)
    assert all(row[3] for row in told.values())


def test_the_page_names_every_private_name() -> None:
    used = {(name, path) for path, tree, imports in sources() for name in private_uses(tree, imports)}
    told = {(CODE.findall(row[0])[0].rpartition(".")[2], CODE.findall(row[1])[0]) for row in rows("Private names")}
    assert told == used


def test_the_page_names_what_is_replaced() -> None:
    for row in rows("Names that are replaced"):
        module, _, name = CODE.findall(row[0])[0].rpartition(".")
        source = (ROOT / CODE.findall(row[1])[0]).read_text(encoding="utf-8")
        assert hasattr(import_module(module), name), "another release has it no more"
        assert re.search(rf"\b{module.rpartition('.')[2]}\.{name} = |^    name = \"{name}\"$", source, re.M), row[0]


def test_the_page_names_the_trainers_arguments() -> None:
    tree = ast.parse((ROOT / "theworld" / "train" / "run.py").read_text(encoding="utf-8"))
    (call,) = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Trainer"
    ]
    assert {name for row in rows("The Trainer") for name in CODE.findall(row[0])} == {one.arg for one in call.keywords}
