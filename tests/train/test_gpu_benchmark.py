"""``benchmarks/train.py`` at its smallest: it is meant for GPUs, and must work when somebody has one."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.launcher import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.dist]


def test_a_row_of_figures_and_one_that_says_why_there_are_none(tmp_path: Path) -> None:
    out = tmp_path / "table.md"
    given = [
        "--tiny",
        "--stages",
        "projector",
        "--variants",
        "ddp",
        "latents",
        "flex",
        "--steps",
        "1",
        "--out",
        str(out),
    ]
    command = [sys.executable, "-m", "benchmarks.train", *given]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, *_, figures, latents, refused = out.read_text().splitlines()
    assert re.search(r"torch \d.*mosaicml \d", first)
    for variant, row in (("ddp", figures), ("latents", latents)):
        assert re.fullmatch(
            rf"\| projector \| {variant} \| [\d,]+ \| [\d,]+ \| [\d.]+ \| [\d,]+ \| [\d.]+ \|( \? \|){{3}}", row
        )
    assert re.fullmatch(r"\| projector \| flex \| .*flex_attention.* \|( \|){7}", refused)
