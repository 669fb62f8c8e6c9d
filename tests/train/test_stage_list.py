"""A run in stages: in order, each from the last one's weights, none twice; what looks at it finds the stages."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import SMOKE_YAML
from tests.helpers.extras import FOUR_BITS, marks_of_extra
from tests.helpers.launcher import composer, run
from tests.helpers.stage_stops import stops_at
from tests.helpers.tensorboard import losses
from theworld import cli
from theworld.commands.after_crash import folder_at_work
from theworld.commands.audit import main as audit
from theworld.commands.preflight import check_stages
from theworld.commands.report import main as report
from theworld.commands.run_status import main as status
from theworld.commands.train import main as train_command
from theworld.config.load import load_config
from theworld.config.schema import Config
from theworld.config.stage_configs import stage_configs
from theworld.errors import EXIT_REQUEUE, UserError
from theworld.inference.load_trained import load_trained
from theworld.preflight.all_checks import check_run
from theworld.preflight.verdicts import FAIL, OK
from theworld.signals import StopRequest
from theworld.stage_folders import newest_run, read_stages
from theworld.train.check_succession import check_succession
from theworld.train.check_training import check_training
from theworld.train.train_stages import train_run

ALIGN = "{name: align, max_duration: 1ep, freeze: {language: true}}"
FULL = "{name: full, max_duration: 2ba, optimizer: {lr: 1.0e-4}, train_loader: {dataset: {draw_bboxes: false}}}"


@pytest.fixture(scope="session")
def stage_yaml(tmp_path_factory: pytest.TempPathFactory) -> str:
    """``yamls/smoke.yaml`` without ``max_duration``."""
    path = tmp_path_factory.mktemp("yaml") / "stages.yaml"
    lines = Path(SMOKE_YAML).read_text().splitlines()
    path.write_text("\n".join(line for line in lines if not line.startswith("max_duration")) + "\n")
    return str(path)


def configured(yaml: str, raw: Path, mds: Path, folder: Path, *stages: str, more: tuple[str, ...] = ()) -> Config:
    settings = [
        *(f"convert.json={raw / 'openspatial.json'}", f"convert.images={raw / 'images'}", f"convert.out={mds}"),
        *(f"save_folder={folder / 'run'}", f"train_loader.dataset.local={folder / 'cache'}"),
        *("train_loader.num_workers=0", "scheduler.t_warmup=0ba", "report=false"),
    ]
    return load_config([yaml, *settings, f"stages=[{', '.join(stages)}]", *more])


@pytest.fixture(scope="module")
def finished(stage_yaml: str, raw_sample: Path, mds_sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """Two stages, trained by one call."""
    folder = tmp_path_factory.mktemp("stages")
    config = configured(stage_yaml, raw_sample, mds_sample, folder, ALIGN, FULL)
    assert train_run(config, StopRequest()) == 0
    return config


def weights(folder: Path, name: str) -> dict[str, Any]:
    return torch.load(folder / name, weights_only=False)["state"]["model"]


def starts(folder: Path) -> int:
    return len((folder / "launches.jsonl").read_text().splitlines())


def test_each_stage_begins_with_the_weights_of_the_one_before(finished: Config) -> None:
    folder = Path(str(finished.save_folder))
    assert [(one.name, one.checkpoint, one.batch) for one in read_stages(folder)] == [
        ("align", "ep1-ba4-rank0.pt", 4),
        ("full", "ep0-ba2-rank0.pt", 2),
    ]
    first, second = weights(folder / "align", "ep1-ba4-rank0.pt"), weights(folder / "full", "ep0-ba2-rank0.pt")
    assert all(".world_projector." in name for name in first)
    assert any(".language_model." in name for name in second)
    # At a rate of 1e-4 two steps of Adam move no weight by more than 2e-4 or so.
    for name, weight in first.items():
        assert 0 < (second[name] - weight).abs().max() < 1e-3, name
    lines = [json.loads(line) for line in (folder / "full" / "ledger" / "rank0.jsonl").read_text().splitlines()]
    assert [line["batch"] for line in lines] == [0, 1]


def test_a_finished_stage_is_never_run_again(
    finished: Config, stage_yaml: str, raw_sample: Path, mds_sample: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Path(str(finished.save_folder))
    third = "{name: more, max_duration: 1ba, freeze: {vision: false}}"
    config = configured(stage_yaml, raw_sample, mds_sample, folder.parent, ALIGN, FULL, third)
    with caplog.at_level("INFO"):
        assert train_run(finished, StopRequest()) == 0
        assert train_run(config, StopRequest()) == 0
    with pytest.raises(UserError, match="stages: more was stage 3 of"):
        train_run(finished, StopRequest())
    assert "stage align is finished: ep1-ba4-rank0.pt after 4 batches" in caplog.text
    assert [starts(folder / name) for name in ("align", "full", "more")] == [1, 1, 1]
    inherited = weights(folder / "more", "ep0-ba1-rank0.pt")
    assert any(".vision_tower." in name for name in inherited)
    assert any(".language_model." in name for name in inherited), "what an earlier stage has trained is not lost"
    assert train_run(config, StopRequest()) == 0


def test_what_looks_at_a_run_finds_its_stages(
    finished: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(str(finished.save_folder))
    code = cli.run(audit, [str(folder), "--json", str(tmp_path / "audit.json")])
    told = capsys.readouterr().out
    assert code == 75, "two batches are not a pass"
    assert "stage align, 1 of" in told
    assert "stage full, 2 of" in told
    found = json.loads((tmp_path / "audit.json").read_text())["stages"]
    assert [found["align"][key] for key in ("at_most_once", "complete")] == ["yes", "yes"]
    assert cli.run(status, [str(folder), "--json"]) == 0
    newest = json.loads(capsys.readouterr().out)
    assert newest["state"] == "finished"
    assert newest["stage"] == newest_run(folder).name
    assert newest["stage_number"] == newest["stages"]
    assert cli.run(report, [str(folder), "--no-audit", "--html", str(tmp_path / "page.html")]) == 0
    assert load_trained(str(folder)).name.startswith(str(newest_run(folder)))
    assert folder_at_work(finished, folder) == folder / "full"  # the last, where all are finished
    assert folder_at_work(finished, tmp_path) == tmp_path / "align"


@pytest.mark.slow
@pytest.mark.dist
def test_a_run_in_stages_goes_through_a_stop_and_a_kill(
    stage_yaml: str, raw_sample: Path, mds_sample: Path, tmp_path: Path
) -> None:
    def launch(folder: str, *stop: str) -> int:
        data = [f"convert.json={raw_sample / 'openspatial.json'}", f"convert.out={mds_sample}"]
        data += [f"train_loader.dataset.local={tmp_path / 'cache'}", f"save_folder={tmp_path / folder}"]
        settings = ["train_loader.num_workers=0", "scheduler.t_warmup=0ba", "save_interval=1ba"]
        settings.append(f"stages=[{ALIGN}, {FULL}]")
        return run(composer(2, stage_yaml, *data, *settings, *stop), tmp_path / f"{folder}.log")

    assert launch("unbroken") == 0, (tmp_path / "unbroken.log").read_text()
    codes = [
        launch("broken", *stops_at("align", 1, signal.SIGTERM)),
        launch("broken", *stops_at("full", 1, signal.SIGKILL)),
        launch("broken"),
    ]
    log = (tmp_path / "broken.log").read_text()
    assert codes[0] == EXIT_REQUEUE, log
    assert codes[1] not in (0, 2, 75, EXIT_REQUEUE), log
    assert codes[2] == 0, log
    for name in ("align", "full"):
        assert losses(tmp_path / "broken" / name) == losses(tmp_path / "unbroken" / name)
    assert [starts(tmp_path / "broken" / name) for name in ("align", "full")] == [2, 2]
    assert cli.run(audit, [str(tmp_path / "broken")]) == 75


def test_a_stop_between_stages_asks_to_be_requeued(
    stage_yaml: str, raw_sample: Path, mds_sample: Path, tmp_path: Path
) -> None:
    stop = StopRequest()
    stop.note(signal.SIGTERM)
    config = configured(stage_yaml, raw_sample, mds_sample, tmp_path, ALIGN, FULL)
    assert train_run(config, stop) == EXIT_REQUEUE
    assert not (tmp_path / "run" / "align").exists()


def test_other_stages_and_other_runs_are_refused(
    finished: Config, stage_yaml: str, raw_sample: Path, mds_sample: Path, tmp_path: Path
) -> None:
    root = Path(str(finished.save_folder)).parent
    turned = configured(stage_yaml, raw_sample, mds_sample, root, FULL, ALIGN)
    with pytest.raises(UserError, match="stages: align was stage 1 of"):
        train_run(turned, StopRequest())
    finished.stages, before = None, finished.stages
    try:
        with pytest.raises(UserError, match="holds a run in stages"):
            train_run(finished, StopRequest())
    finally:
        finished.stages = before
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "launches.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match="holds a run without stages"):
        train_run(configured(stage_yaml, raw_sample, mds_sample, tmp_path, ALIGN), StopRequest())
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "stages.json").write_text('{"stages": [{"name": "../up", "checkpoint": null, "batch": 0}]}')
    with pytest.raises(UserError, match="not a stage's names"):
        read_stages(tmp_path / "other")


def test_configurations_of_the_stages(stage_yaml: str) -> None:
    settings = ("load_path=x.pt", "hub.repo_id=me/it", "save_folder=f")
    config = load_config([stage_yaml, f"stages=[{ALIGN}, {FULL}]", *settings])
    (_, align), (_, full) = stage_configs(config)
    assert (align.save_folder, full.save_folder) == ("f/align", "f/full")
    assert (align.hub.repo_id, full.hub.repo_id) == ("me/it-align", "me/it-full")
    assert (align.load_path, full.load_path) == ("x.pt", None)
    assert (align.model.freeze.language, full.model.freeze.language) == (True, False)
    assert full.optimizer == {**config.optimizer, "lr": 1.0e-4}
    assert full.run_name == "smoke-full"
    assert full.train_loader.dataset.remote == config.train_loader.dataset.remote


def check_all(config: Config) -> None:
    runs = stage_configs(config)
    for _, one in runs:
        check_training(one, 1)
    check_succession(runs)


@pytest.mark.parametrize(
    ("stages", "says"),
    [
        ("{name: a}", "stages, a: no max_duration"),
        ("{max_duration: 1ep}", r"stages\[0\]\.name: None: expected letters"),
        ("{name: a/b, max_duration: 1ep}", r"stages\[0\]\.name: 'a/b'"),
        ("{name: a, max_duration: 1ep}, {name: a, max_duration: 1ep}", "two of them are called a"),
        ("{name: a, max_duration: 1ep, save_folder: x}", "save_folder: stands once for all stages"),
        ("{name: a, max_duration: 1ep, load_path: x}", "load_path: stands once for all stages"),
        ("{name: a, max_duration: 1ep, optimiser: {lr: 1}}", r"unknown key optimiser; did you mean optimizer\?"),
        ("{name: a, max_duration: 1ep, freeze: {visoin: true}}", r"stages, a: unknown key model\.freeze\.visoin"),
        ("{name: a, max_duration: 1ep, train_loader: {num_workers: some}}", "stages, a: train_loader.num_workers"),
        ("{name: a, max_duration: soon}", "max_duration: 'soon' is not a time"),
        ("{name: a, max_duration: 1ep, precision: amp_bf16}", "precision: amp_bf16 needs a GPU"),
        ("{name: a, max_duration: 1ep, optimizer: {groups: {vae: {lr: 1}}}}", "nothing of it trains"),
    ],
)
def test_stages_that_cannot_be_are_one_line(stages: str, says: str, stage_yaml: str, mds_sample: Path) -> None:
    config = load_config([stage_yaml, f"convert.out={mds_sample}", f"stages=[{stages}]"])
    with pytest.raises(UserError, match=says):
        check_all(config)


LORA = "model: {lora: {rank: 4}}"


@pytest.mark.parametrize(
    ("first", "second", "says"),
    [
        ("model: {gemma: other}", "freeze: {}", "stages, b: model.gemma is builtin:tiny, but other in a"),
        ("model: {enable_world: false}", "freeze: {}", "stages, b: model.enable_world is True, but False in a"),
        ("freeze: {}", "model: {projector: {patch: 4}}", "stages, b: model.projector is .*'patch': 4"),
        (f"freeze: {{language: true}}, {LORA}", "freeze: {}", "model.lora is null, but a trains adapters: they stay"),
        (
            f"freeze: {{language: true}}, {LORA}",
            "freeze: {language: true}, model: {lora: {rank: 8}}",
            "stages, b: model.lora.rank is 8, but 4 in a, whose adapters it goes on with",
        ),
        ("freeze: {}", f"freeze: {{language: true}}, {LORA}", "model.lora has language, whose own weights a trains"),
        pytest.param(
            f"freeze: {{language: true}}, {LORA}",
            "freeze: {language: true}, model: {lora: {rank: 4}, load_in_4bit: true}",
            "stages, b: model.load_in_4bit is true, but false in a, whose adapters are for that base",
            marks=marks_of_extra(*FOUR_BITS),
        ),
    ],
)
def test_a_stage_that_could_not_take_over_the_weights_is_refused_at_the_start(
    first: str, second: str, says: str, stage_yaml: str, mds_sample: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stages = f"stages=[{{name: a, max_duration: 1ba, {first}}}, {{name: b, max_duration: 1ba, {second}}}]"
    assert cli.run(train_command, [stage_yaml, f"convert.out={mds_sample}", stages], in_ranks=True) == 2
    assert re.search(says, capsys.readouterr().err)


def test_adapters_may_come_later_and_stay(stage_yaml: str, mds_sample: Path) -> None:
    frozen = "freeze: {language: true}"
    stages = [
        f"{{name: {name}, max_duration: 1ba, {frozen}, {more}}}"
        for name, more in (("a", "seed: 1"), ("b", LORA), ("c", "model: {lora: {rank: 4, dropout: 0.1}}"))
    ]
    check_all(load_config([stage_yaml, f"convert.out={mds_sample}", f"stages=[{', '.join(stages)}]"]))


def test_preflight_looks_at_each_stage(stage_yaml: str, raw_sample: Path, mds_sample: Path, tmp_path: Path) -> None:
    narrow = "{name: narrow, max_duration: 1ep, train_loader: {dataset: {max_seq_len: 24}}}"
    config = configured(stage_yaml, raw_sample, mds_sample, tmp_path, ALIGN, narrow)
    found = {one.name: one for one in check_stages(config, lambda one: check_run(one, 1, 1))}
    assert found["align: cut"].state == OK
    assert "cut" not in found
    assert [name for name, one in found.items() if one.state == FAIL] == ["narrow: samples"]


def test_a_length_at_the_top_beside_stages_is_refused(
    stage_yaml: str, mds_sample: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in ([SMOKE_YAML, f"stages=[{ALIGN}]"], [stage_yaml, f"stages=[{ALIGN}]", "max_duration=2ep"]):
        assert cli.run(train_command, arguments, in_ranks=True) == 2
        assert "max_duration: each of stages has its own" in capsys.readouterr().err
