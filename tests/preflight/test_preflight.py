"""What recipes/preflight.py says of runs that would work, and of each kind that would not."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest
import torch

from tests.conftest import smoke_config
from tests.convert.raw_folder import Raw, entry
from theworld.commands.preflight import main
from theworld.commands.train import main as train
from theworld.config.schema import Config
from theworld.data.batches.sample_encoder import SampleEncoder
from theworld.data.shards.convert import convert
from theworld.errors import UserError
from theworld.model.build import load_processor
from theworld.pages.pick_samples import StoredSamples
from theworld.pages.shown_sample import show_sample
from theworld.preflight.all_checks import check_run
from theworld.preflight.gpu_health import Device, arithmetic_verdict, check_health, clock_verdict, ecc_verdict
from theworld.preflight.verdicts import FAIL, OK, UNKNOWN, WARN, Verdict, would_fail

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def configure(raw_sample: Path, mds_sample: Path, tmp_path: Path) -> Callable[..., Config]:
    def configure(*settings: str) -> Config:
        return smoke_config(raw_sample, mds_sample, f"save_folder={tmp_path / 'run'}", *settings)

    return configure


def by_name(verdicts: list[Verdict]) -> dict[str, Verdict]:
    return {one.name: one for one in verdicts}


def test_a_run_that_would_work(configure: Callable[..., Config]) -> None:
    found = by_name(check_run(configure(), 2, 2, gpu=80 * 10**9, samples_per_second=10.0))
    assert not would_fail(list(found.values()))
    assert found["data set"].figures["samples"] == 26
    assert found["a pass"].figures == {"steps": 4, "samples": 26, "hours": 26 / 10 / 3600}
    assert found["GPU memory"].state == OK
    assert found["tokens a sample"].figures["image"] == 16
    assert sum(found["tokens a sample"].figures["histogram"]["counts"]) == 26
    more = by_name(check_run(configure("train_loader.expected_samples=90"), 1, 1))
    assert more["a pass"].figures == {"steps": 12, "samples": 90}
    # What a GPU has is not known where none is: no failure, and what is needed is said.
    alone = by_name(check_run(configure(), 1, 1))
    assert alone["GPU memory"].state == UNKNOWN
    assert "give its size with --gpu" in alone["GPU memory"].text


def test_the_shares_are_those_of_the_encoded_samples(configure: Callable[..., Config], mds_sample: Path) -> None:
    config = configure("train_loader.dataset.max_seq_len=560")
    encoder = SampleEncoder(load_processor(config.model), 560)
    stored = StoredSamples(mds_sample)
    shown = [show_sample(stored[place], "", encoder) for place in range(len(stored))]
    cut = by_name(check_run(config, 1, 1))["cut"]
    states = [turn.state for one in shown for turn in one.turns]
    assert cut.figures["looked_at"] == 26
    assert cut.figures["samples_cut_percent"] == pytest.approx(100 * sum(one.truncated for one in shown) / 26)
    assert cut.figures["turns_cut_percent"] == pytest.approx(100 * states.count("cut") / len(states))
    low, high = cut.figures["samples_cut_interval"]
    assert low < cut.figures["samples_cut_percent"] < high
    assert cut.state == WARN


@pytest.mark.parametrize(
    ("settings", "ranks", "gpu", "name", "message"),
    [
        (("global_train_batch_size=9",), 2, None, "configuration", "does not divide by 2 ranks"),
        (("convert.out=/nowhere",), 1, None, "data set", "no index.json"),
        (("train_loader.dataset.max_seq_len=20",), 1, None, "samples", "raise it, or use fewer world tokens"),
        (("train_loader.dataset.cache_limit=1kb",), 1, None, "cache", "cache_limit allows"),
        (("train_loader.expected_samples=auto", "convert.out=/nowhere"), 1, None, "a pass", "no index.json"),
        ((), 1, 10**9, "GPU memory", "GiB are needed on a GPU of 0.9 GiB"),
        (("hub.repo_id=someone/somewhere",), 1, None, "Hub", "so nothing can be uploaded"),
        (("model.gemma=/nowhere/gemma",), 1, None, "model", "/nowhere/gemma"),
    ],
)
def test_a_run_that_would_not(
    settings: tuple[str, ...],
    ranks: int,
    gpu: int | None,
    name: str,
    message: str,
    configure: Callable[..., Config],
) -> None:
    config = configure("train_loader.dataset.remote=${convert.out}", *settings)
    found = by_name(check_run(config, ranks, 1, gpu))
    assert found[name].state == FAIL
    assert message in found[name].text


def test_full_disks(configure: Callable[..., Config], monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk cannot be filled for a test; what it says is free can be said otherwise."""
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(10**9, 10**9, 1000))
    found = by_name(check_run(configure("train_loader.num_workers=2"), 1, 1))
    for name in ("cache", "checkpoints", "shared memory"):
        assert found[name].state == FAIL
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(10**9, 0, 10**9))
    monkeypatch.delenv("TMPDIR", raising=False)
    again = by_name(check_run(configure(), 1, 1))
    assert (again["cache"].state, again["checkpoints"].state) == (WARN, OK)
    assert "TMPDIR is not set" in again["cache"].text


def test_a_version_that_was_not_tried(configure: Callable[..., Config], monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "99.0" if name == "omegaconf" else real(name))
    found = by_name(check_run(configure(), 1, 1))["versions"]
    assert found.state == WARN
    assert "omegaconf 99.0, wanted" in found.text


def test_a_data_set_without_a_usable_answer_is_refused_by_the_training(tmp_path: Path) -> None:
    """With ``preflight: true``; nothing is loaded, no save folder made."""
    raw = Raw(tmp_path, 0)
    talk = [{"from": "human", "value": "Is <mask> big?"}, {"from": "gpt", "value": "Region [4] is."}]
    raw.write_json([entry(1, conversations=talk)])
    raw.add_images(1)
    convert(raw.config())
    settings = ["yamls/smoke.yaml", f"train_loader.dataset.remote={raw.out}", f"save_folder={tmp_path / 'run'}"]
    with pytest.raises(UserError, match="preflight: masks and boxes: 100"):
        train([*settings, "preflight=true"])
    assert not (tmp_path / "run").exists()


def devices(*rates: float) -> list[Device]:
    return [Device(rank, f"node{rank // 2}", "H100", rate, 0, 100.0) for rank, rate in enumerate(rates)]


def test_a_slow_device_is_named() -> None:
    assert arithmetic_verdict(devices(700, 690, 710, 705)).state == OK
    slow = arithmetic_verdict(devices(700, 690, 710, 500))
    assert slow.state == WARN
    assert "rank 3 on node1 500.00" in slow.text
    other = Device(1, "node0", "A100", 700, 0, 100.0)
    assert "of different kinds: A100, H100" in arithmetic_verdict([*devices(700), other]).text


def test_memory_errors_and_clocks() -> None:
    bad = Device(1, "node7", "H100", 700, 3, 104.5)
    assert ecc_verdict([*devices(700), bad]).state == FAIL
    assert "rank 1 on node7: 3" in ecc_verdict([*devices(700), bad]).text
    assert ecc_verdict(devices(700)).state == OK
    assert ecc_verdict([Device(0, "a", "CPU", 1, None, 0.0)]).state == UNKNOWN
    skewed = clock_verdict([*devices(700), bad])
    assert skewed.state == WARN
    assert "node0 is 4.5 s behind node7" in skewed.text


def test_this_device() -> None:
    found = by_name(check_health(torch.device("cpu")))
    assert found["devices"].figures["median_tflops"] > 0
    assert found["network"].state == UNKNOWN


def test_the_command(
    mds_sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ["yamls/smoke.yaml", f"convert.out={mds_sample}", f"save_folder={tmp_path}"]
    assert main([*settings, "--json", "--gpu", "80", "--ranks", "4"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["fails"] is False
    assert {"name", "state", "text", "figures"} == set(said["verdicts"][0])
    assert "4 ranks" in said["verdicts"][0]["text"]
    assert main([*settings, "--gpu", "1"]) == 1
    assert "fail    GPU memory" in capsys.readouterr().out
    with pytest.raises(UserError, match="unknown key"):
        main([*settings, "no_such_key=1"])
