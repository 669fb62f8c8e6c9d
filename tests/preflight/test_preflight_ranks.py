"""recipes/preflight.py through the composer launcher: rank 0 speaks, the network between the ranks is measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.helpers.launcher import COMPOSER, ended, start


@pytest.mark.slow
@pytest.mark.dist
def test_two_ranks(mds_sample: Path, tmp_path: Path) -> None:
    settings = ["yamls/smoke.yaml", f"convert.out={mds_sample}", f"save_folder={tmp_path}", "device=cpu", "--json"]
    command = [COMPOSER, "-n", "2", "recipes/preflight.py", *settings]
    output, errors = tmp_path / "output", tmp_path / "errors"
    code = ended(start(command, output, errors=errors))
    assert code == 0, output.read_text() + errors.read_text()
    (line,) = [line for line in output.read_text().splitlines() if line.startswith("{")]
    found = {one["name"]: one for one in json.loads(line)["verdicts"]}
    assert found["network"]["figures"]["all_ranks_gb_s"] > 0
    assert [one["rank"] for one in found["devices"]["figures"]["ranks"]] == [0, 1]
    assert found["configuration"]["text"].startswith("2 ranks")
    command[-2] = "global_train_batch_size=9"
    code = ended(start(command, output, errors=errors))
    told = output.read_text() + errors.read_text()
    assert code == 1, told
    assert "Traceback" not in told
