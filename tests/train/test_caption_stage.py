"""``yamls/smoke_stages.yaml``: the projector alone on captions, then regions, each stage with data of its own."""

from __future__ import annotations

import json
import signal
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from tests.conftest import ROOT
from tests.helpers.launcher import composer, run
from tests.helpers.stage_stops import stops_at
from tests.helpers.tensorboard import losses
from theworld import cli
from theworld.commands.audit import main as audit
from theworld.commands.to_mds import main as to_mds
from theworld.config.load import load_config
from theworld.config.stage_configs import config_of_stage, stage_configs
from theworld.errors import UserError
from theworld.run_audit import configured_json
from theworld.stage_folders import read_stages

STAGES = ROOT / "yamls" / "smoke_stages.yaml"


@pytest.fixture
def yaml(raw_sample: Path, tmp_path: Path) -> str:
    """The YAML with its folder ``demo`` elsewhere, where the raw regions are already."""
    for name in ("openspatial.json", "images"):
        (tmp_path / name).symlink_to(raw_sample / name)
    path = tmp_path / "stages.yaml"
    path.write_text(STAGES.read_text().replace("demo/", f"{tmp_path}/"))
    return str(path)


@pytest.mark.slow
@pytest.mark.dist
def test_captions_then_regions_through_a_kill_in_each_stage(yaml: str, tmp_path: Path) -> None:
    sample = ["convert/sample.py", str(tmp_path / "captions"), "--captions", "--seed", "18", "--samples", "20"]
    assert run([sys.executable, *sample, "--size", "128", "--workers", "1"], tmp_path / "sample.log") == 0
    assert cli.run(to_mds, [yaml, "--stage", "align"]) == 0
    assert cli.run(to_mds, [yaml]) == 0

    def launch(folder: str, *kill: str) -> int:
        settings = [f"save_folder={tmp_path / folder}", "train_loader.num_workers=0", "save_interval=1ba"]
        return run(composer(2, yaml, *settings, *kill), tmp_path / f"{folder}.log")

    assert launch("unbroken") == 0, (tmp_path / "unbroken.log").read_text()
    killed = [launch("broken", *stops_at(*place, signal.SIGKILL)) for place in (("align", 2), ("full", 0))]
    log = (tmp_path / "broken.log").read_text()
    assert not {0, 2, 75, 85} & set(killed), log
    assert launch("broken") == 0, (tmp_path / "broken.log").read_text()
    broken = tmp_path / "broken"
    assert [(one.name, one.checkpoint) for one in read_stages(broken)] == [
        ("align", "ep1-ba3-rank0.pt"),
        ("full", "ep1-ba4-rank0.pt"),
    ]
    for name in ("align", "full"):
        assert losses(broken / name) == losses(tmp_path / "unbroken" / name)
    aligned = torch.load(broken / "align" / "ep1-ba3-rank0.pt", weights_only=False)["state"]["model"]
    assert aligned
    assert all(".world_projector." in name for name in aligned), "the projector alone"

    assert cli.run(audit, [str(broken), "--json", str(tmp_path / "audit.json")]) == 0
    found = json.loads((tmp_path / "audit.json").read_text())["stages"]
    verdicts = ("at_most_once", "complete", "complete_json", "seen_once")
    assert [found["align"][key] for key in verdicts] == ["yes", "yes", "yes", 20]
    assert [found["full"][key] for key in verdicts] == ["yes", "yes", "yes", 26]


def test_a_stage_knows_what_its_own_data_was_made_of(yaml: str, tmp_path: Path) -> None:
    config = load_config([yaml])
    (_, align), (_, full) = stage_configs(config)
    assert align.convert.json == str(tmp_path / "captions" / "captions.json")
    assert align.convert.workers == 2, "what it does not say is as at the top"
    assert full.convert == config.convert
    other = f"{{name: other, max_duration: 1ep, train_loader: {{dataset: {{remote: {tmp_path / 'other'}}}}}}}"
    config = load_config([yaml, f"stages=[{other}]"])
    with pytest.raises(UserError, match="stages, other: no convert of its own"):
        config_of_stage(config, "other")
    with pytest.raises(UserError, match=r"--stage more: no such stage; the YAML has other"):
        config_of_stage(config, "more")
    (_, unknown), *_ = stage_configs(config)
    assert configured_json(asdict(unknown)).ids is None, "the regions' JSON is not that of another data set"
    same = "{name: same, max_duration: 1ep, convert: {out: elsewhere}}"
    with pytest.raises(UserError, match=r"stages, same: convert\.out is its own, but train_loader\.dataset\.remote is"):
        stage_configs(load_config([yaml, f"stages=[{same}]"]))


def test_the_real_stages_are_those_of_the_small_ones() -> None:
    real, small = (stage_configs(load_config([str(path)])) for path in (STAGES.with_name("stages.yaml"), STAGES))
    assert [name for name, _ in real] == [name for name, _ in small]
    for (_, one), (_, other) in zip(real, small, strict=True):
        assert one.model.freeze == other.model.freeze
        assert one.convert.format == other.convert.format
        assert one.train_loader.dataset.remote == one.convert.out
