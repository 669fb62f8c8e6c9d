"""Values that come as text: ``datasets`` gives some columns of its sets as the text of a Python literal."""

from __future__ import annotations

import ast
import json
from typing import Any


def literal(value: Any) -> Any:
    """A value that may come as the text of a Python literal or of JSON; never evaluated.

    Raises:
        ValueError: it is neither.
    """
    if not isinstance(value, str):
        return value
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return json.loads(value)
