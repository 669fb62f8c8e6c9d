"""A user's own code, named in the user's own YAML or command line, never by data."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from theworld.errors import UserError, first_line


def add_code_paths(paths: Sequence[str]) -> None:
    """Make a user's own classes importable: a folder goes on the import path, a Python file becomes a module.

    Args:
        paths: ``code_paths`` of the YAML and the command line that the user gave.

    Raises:
        UserError: names the path that is not there or cannot be imported.
    """
    for text in paths:
        path = Path(text).expanduser().absolute()
        if path.is_dir():
            if str(path) not in sys.path:
                sys.path.insert(0, str(path))
            continue
        if path.suffix != ".py" or not path.is_file():
            raise UserError(f"code_paths: {text}: neither a folder nor a Python file")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        if path.stem in sys.modules and getattr(sys.modules[path.stem], "__file__", None) != str(path):
            raise UserError(f"code_paths: {text}: a module {path.stem} is there already; give the file another name")
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module
        try:
            spec.loader.exec_module(module)
        except Exception as error:  # whatever the user's own code raises
            raise UserError(f"code_paths: {text}: {type(error).__name__}: {first_line(error)}") from error


def own_class(section: str, name: str) -> Callable[..., Any]:
    """A user's own class or function, ``package.module:Class``.

    Raises:
        UserError: there is none.
    """
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"{section}: {name}: {first_line(error)}; expected package.module:Class, its file or folder in code_paths"
        ) from error
    if not callable(found):
        raise UserError(f"{section}: {name}: is not a class or function")
    return found
