"""The README's first command: the whole road with a kill -9 in the middle, through the real launcher."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.dist
def test_demo_converts_trains_is_killed_resumes_grows_and_is_exact(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    command = [sys.executable, "recipes/demo.py", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "kill -9 after" in done.stdout
    assert "exactly once: yes" in done.stdout
    assert re.search(r"seen once +96\n", done.stdout)
    assert "samples at the first start, at the second  58 96" in done.stdout
    start, end = (float(value) for value in re.findall(r"loss at the \w+ +([\d.]+)", done.stdout))
    assert end < start
    checkpoint = re.search(r"^checkpoint +(.+)$", done.stdout, re.MULTILINE)
    assert checkpoint
    assert (ROOT / checkpoint[1]).is_file()
    # The trainer has written its page by itself.
    report = (folder / "run" / "report.html").read_text(encoding="utf-8")
    assert "<title>run: finished</title>" in report
    assert '<tr><th>exactly once</th><td class="good">yes</td></tr>' in report
    assert "killed, or crashed" in report
    assert (folder / "preview.html").read_text(encoding="utf-8").count('class="sample"') == 24
    for page in (folder / "preview.html", folder / "run" / "report.html"):
        assert page.as_uri() in done.stdout


@pytest.mark.slow
def test_demo_leaves_a_folder_alone_that_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    command = [sys.executable, "recipes/demo.py", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2
    assert "no earlier demo's" in done.stderr
    assert (tmp_path / "thesis.txt").exists()
