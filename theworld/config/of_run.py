"""What a run's own ``config.yaml`` says: data about it, whoever has written the file, and never a configuration.

It is read without OmegaConf: nothing in it is looked up in the environment, and no key of it, ``code_paths`` say, makes
anything be imported. Only the YAML and the command line that the user gives can.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from theworld.errors import UserError, first_line


def read_run_config(path: Path) -> dict[str, Any]:
    """The file's content; nothing if there is none.

    Raises:
        UserError: it is damaged.
    """
    if not path.is_file():
        return {}
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"{path}: damaged ({first_line(error)}); the run's next start writes it anew") from error
    return found if isinstance(found, dict) else {}


def setting(config: dict[str, Any], key: str) -> Any:
    """The value of a key such as ``train_loader.dataset.split``; None where there is none."""
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value
