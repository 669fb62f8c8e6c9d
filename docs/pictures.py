"""The README's pictures from a demo that has been run: python docs/pictures.py [DEMO]

Needs chromium, and trains for a minute on the demo's data: a run that is killed twice. Writes docs/preview.png and
docs/report.png.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))

from recipes.demo import step, train_and_kill  # noqa: E402

KILLS = (14, 31)
"""Batches after which the run is killed, of 48."""
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


def kill_twice(demo: Path) -> Path:
    """Train a pass over the demo's data through two kills; the page of that run."""
    run = (demo / "two-kills").resolve()
    shutil.rmtree(run, ignore_errors=True)
    settings = [
        f"convert.out={(demo / 'mds').resolve()}",
        f"save_folder={run}",
        "global_train_batch_size=2",
        "device_train_microbatch_size=2",
    ]
    train = [str(Path(sys.executable).with_name("composer")), "recipes/train.py", "yamls/smoke.yaml", *settings]
    for end in KILLS:
        train_and_kill(train, run, end)
    step("The same command again, to the end", train)
    return run / "report.html"


def main() -> None:
    demo = Path(sys.argv[1] if len(sys.argv) > 1 else "demo")
    if not (demo / "preview.html").is_file():
        sys.exit(f"error: {demo / 'preview.html'}: not there; run make demo first")
    shoot(demo / "preview.html", (1200, 780), DOCS / "preview.png")
    shoot(kill_twice(demo), (1200, 1120), DOCS / "report.png")


if __name__ == "__main__":
    main()
