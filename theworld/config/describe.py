"""The keys of the YAML, described by the schema's own annotations, defaults and docstrings."""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import Field, asdict, dataclass, fields, is_dataclass
from typing import Any, get_type_hints

from theworld.config import schema
from theworld.config.schema import MISSING, Config

WIDTH = 100


@dataclass(frozen=True)
class Key:
    """A key of the YAML: its dotted name, its type, its default and what it means, as text."""

    name: str
    type: str
    default: str
    meaning: str


def docstrings() -> dict[tuple[str, str], tuple[str, str]]:
    """Class and attribute of the schema to the attribute's annotation and docstring, as they stand in the source."""
    found: dict[tuple[str, str], tuple[str, str]] = {}
    for node in ast.parse(inspect.getsource(schema)).body:
        if not isinstance(node, ast.ClassDef):
            continue
        for item, following in zip(node.body, [*node.body[1:], None], strict=True):
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                found[node.name, item.target.id] = ast.unparse(item.annotation), _text(following)
    return found


def _text(node: ast.stmt | None) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return " ".join(node.value.value.split())
    return ""


def describe_keys(sections: Sequence[str] = (), kind: type = Config, prefix: str = "") -> Iterator[Key]:
    """Every key, in the schema's order.

    Args:
        sections: names at the top of the YAML; empty: all.
        kind: the schema's class.
        prefix: what stands before the names.
    """
    texts, hints = docstrings(), get_type_hints(kind)
    for item in fields(kind):
        if sections and item.name not in sections:
            continue
        if is_dataclass(hints[item.name]):
            yield from describe_keys((), hints[item.name], f"{prefix}{item.name}.")
        else:
            annotation, meaning = texts[kind.__name__, item.name]
            yield Key(prefix + item.name, annotation, default_text(item), meaning)


def default_text(item: Field[Any]) -> str:
    """The default as a YAML would have it, or "required"."""
    value = item.default_factory() if item.default_factory is not NO_DEFAULT else item.default
    return "required" if value == MISSING else json.dumps(value, default=asdict)


def markdown_table(keys: Iterator[Key]) -> str:
    """The keys as a table of a Markdown page."""
    rows = [("key", "type", "default", "meaning"), ("---",) * 4]
    rows += [(f"`{key.name}`", f"`{key.type}`", f"`{key.default}`", key.meaning) for key in keys]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows) + "\n"


def help_text(sections: Sequence[str]) -> str:
    """The keys of some sections as ``--help`` shows them."""
    lines = ["keys of the YAML, each of which can also be given as key=value:"]
    for key in describe_keys(sections):
        lines.append(f"  {key.name}: {key.type} = {key.default}")
        lines.extend(textwrap.wrap(key.meaning, WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6))
    return "\n".join(lines)
