"""The README's pictures from a demo that has been run: python docs/pictures.py [DEMO]

Needs chromium. Writes docs/preview.png and docs/report.png.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

DOCS = Path(__file__).parent
COLOURS = 128
"""Of the pictures' palettes: pages of text and figures lose nothing that is seen."""


def shoot(page: Path, size: tuple[int, int], to: Path) -> None:
    """The top of a page, so many pixels, as a small PNG."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("error: no chromium here: apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "shot.png"
        flags = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars"]
        window = f"--window-size={size[0]},{size[1]}"
        command = [chromium, *flags, window, f"--screenshot={shot}", page.resolve().as_uri()]
        subprocess.run(command, check=True, capture_output=True)
        with Image.open(shot) as image:
            image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(to, optimize=True)


def main() -> None:
    demo = Path(sys.argv[1] if len(sys.argv) > 1 else "demo")
    for page in (demo / "preview.html", demo / "run" / "report.html"):
        if not page.is_file():
            sys.exit(f"error: {page}: not there; run make demo first")
    shoot(demo / "preview.html", (1200, 780), DOCS / "preview.png")
    shoot(demo / "run" / "report.html", (1200, 1120), DOCS / "report.png")


if __name__ == "__main__":
    main()
