"""A ``config.yaml`` that somebody else has written: what it says is shown or passed over, and nothing of it is done."""

from __future__ import annotations

from pathlib import Path

import pytest

from theworld.commands.audit import command as audit
from theworld.errors import UserError
from theworld.hub.card import shown_config
from theworld.hub.push import run_name
from theworld.inference.load_trained import draws_boxes

PLANTED = """
run_name: ${{oc.env:HF_TOKEN}}
seed: ${{oc.env:HF_TOKEN}}
optimizer: {{name: decoupled_adamw, lr: 0.0003}}
code_paths: [{code}]
transform: planted_code:run
callbacks: {{"planted_code:Run": {{}}}}
convert: {{json: 5, holdout: many}}
train_loader: {{dataset: {{remote: "s3://stranger/${{oc.env:HF_TOKEN}}", draw_bboxes: false}}}}
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_TOKEN", "hf_of_this_user")
    code = tmp_path / "planted_code.py"
    code.write_text(f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n", encoding="utf-8")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(PLANTED.format(code=code), encoding="utf-8")
    return tmp_path / "run"


def test_nothing_is_looked_up_and_nothing_imported(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An environment variable that went into an address would reach whom the address belongs to."""
    shown = shown_config(run / "config.yaml") + run_name(run)
    assert "seed: ${oc.env:HF_TOKEN}" in shown
    assert "  lr: 0.0003" in shown
    assert not draws_boxes(run)
    assert audit([str(run)]) in (1, 2)
    shown += "".join(capsys.readouterr())
    assert "hf_of_this_user" not in shown
    assert "Traceback" not in shown
    assert not (run.parent / "ran").exists()


@pytest.mark.parametrize(
    "content", [b"key: [unclosed", b"\xff\xfe", b"a: " + b"[" * 5000, b"!!python/object/apply:os.getcwd []"]
)
def test_one_that_cannot_be_read_is_a_line(content: bytes, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "config.yaml").write_bytes(content)
    for use in (draws_boxes, run_name):
        with pytest.raises(UserError, match=r"config\.yaml: damaged \(.+\); the run's next start"):
            use(run)
    assert audit([str(run)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert "config.yaml: damaged" in line
