"""The notebook: without outputs in the repo, and it runs to its end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOUR = ROOT / "examples" / "tour.ipynb"


def test_no_outputs_are_kept() -> None:
    cells = json.loads(TOUR.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    kept = [cell["source"] for cell in code if cell["outputs"] or cell["execution_count"] is not None]
    assert kept == [], "clear all outputs before a commit"


@pytest.mark.slow
def test_the_tour_runs_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    tour = nbformat.read(TOUR, as_version=4)
    nbclient.NotebookClient(tour, timeout=300, resources={"metadata": {"path": str(TOUR.parent)}}).execute()
    printed = [
        "".join(output.get("text", "") for output in cell.outputs) for cell in tour.cells if cell.cell_type == "code"
    ]
    assert "exactly once: yes" in printed[-1]
    assert "seen once          64" in printed[-1]
    kinds = {kind for cell in tour.cells for output in cell.get("outputs", ()) for kind in output.get("data", ())}
    assert {"image/png", "image/svg+xml"} <= kinds
