"""A page as one file: its template, style and script, and what the browser may do with it."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined

from theworld import __version__
from theworld.errors import UserError, describe
from theworld.files import write_bytes


def resource(name: str) -> str:
    """A file that lies beside this one."""
    return files("theworld.pages").joinpath(name).read_text(encoding="utf-8")


def render(template: str, script: str = "", **values: Any) -> str:
    """The page. Every value is escaped: it may come from data, a log or a server.

    A policy in the page forbids the browser to load anything, and to run any script but ``script``.

    Args:
        template: name of a Jinja file.
        script: name of a file of JavaScript; "": none.
        values: for the template.
    """
    code = resource(script) if script else ""
    allowed = f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'" if code else "'none'"
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}"
    environment = Environment(loader=FunctionLoader(resource), autoescape=True, undefined=StrictUndefined)
    environment.filters["thousands"] = lambda number: f"{number:,}"
    page = environment.get_template(template)
    return page.render(code=code, policy=policy, style=resource("page.css"), version=__version__, **values)


def write_page(path: Path, page: str) -> None:
    """Write a page, whole or not at all.

    Raises:
        UserError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, page.encode())
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({describe(error)})") from error
