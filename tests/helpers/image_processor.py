"""The settings of a saved image processor, wherever this release of transformers keeps them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def change_image_processor(folder: Path, **settings: Any) -> None:
    """Put settings into the image processor that is saved in ``folder``."""
    own = folder / "preprocessor_config.json"  # transformers 4; 5 has them within the processor's
    path = own if own.exists() else folder / "processor_config.json"
    whole = json.loads(path.read_text())
    place = whole if own.exists() else whole["image_processor"]
    place |= settings
    path.write_text(json.dumps(whole))
