"""Evaluation on the held-out share: what is logged is what the model does on every held-out answer token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import smoke_config
from tests.helpers.tensorboard import logged
from theworld.config.schema import Config
from theworld.data.batches.collate import Collator
from theworld.data.batches.sample_encoder import SampleEncoder
from theworld.data.cache.snapshot import Generation, Snapshot
from theworld.data.samples import decode_sample
from theworld.data.shards.convert import convert
from theworld.errors import UserError
from theworld.model.build import load_model, load_processor
from theworld.train.eval_series import eval_facts
from theworld.train.run import train


def held_out_config(raw: Path, folder: Path, *overrides: str) -> Config:
    return smoke_config(
        raw,
        folder / "mds",
        "convert.holdout=0.3",
        f"save_folder={folder / 'run'}",
        f"train_loader.dataset.local={folder / 'cache'}",
        f"eval_loader.dataset.remote={folder / 'mds-eval'}",
        f"eval_loader.dataset.local={folder / 'cache-eval'}",
        "eval_loader.num_workers=0",
        "train_loader.num_workers=0",
        "global_train_batch_size=6",
        "device_train_microbatch_size=3",
        *overrides,
    )


def test_loss_and_accuracy_of_every_held_out_token(raw_sample: Path, tmp_path: Path) -> None:
    # A learning rate of zero: the model that is evaluated is the one that can be built again here.
    config = held_out_config(raw_sample, tmp_path, "eval_interval=3ba", "optimizer.lr=0.0", "max_duration=3ba")
    convert(config.convert)
    held_out = json.loads((tmp_path / "mds-eval" / "manifest.json").read_text())["samples"]
    assert held_out % 6, "the last batch must be short, or padding samples are not tested"
    assert train(config) == 0

    from streaming import StreamingDataset

    processor, model = load_processor(config.model), load_model(config.model, seed=config.seed)
    encoder = SampleEncoder(processor, config.train_loader.dataset.max_seq_len)
    loss, correct, tokens = 0.0, 0, 0
    for sample in StreamingDataset(local=str(tmp_path / "mds-eval"), batch_size=1):
        batch = Collator(processor)([encoder(decode_sample(sample))])
        tensors = {name: value for name, value in batch.items() if hasattr(value, "shape")}
        output = model(**tensors)
        loss += float(output.loss) * int(output.num_loss_tokens)
        correct += int(output.num_correct)
        tokens += int(output.num_loss_tokens)
    loss_by_batch = logged(tmp_path / "run", "metrics/eval/AnswerLoss")
    assert list(loss_by_batch.values()) == [pytest.approx(loss / tokens, rel=1e-4)]
    accuracy = logged(tmp_path / "run", "metrics/eval/AnswerAccuracy")
    assert list(accuracy.values()) == [pytest.approx(correct / tokens, rel=1e-4)]


def test_evaluation_happens_at_each_interval_and_does_not_disturb_the_pass(raw_sample: Path, tmp_path: Path) -> None:
    config = held_out_config(raw_sample, tmp_path, "eval_interval=2ba")
    convert(config.convert)
    assert train(config) == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "ledger" / "rank0.jsonl").read_text().splitlines()]
    seen = [name for line in lines for name in line["ids"]]
    manifest = json.loads((tmp_path / "mds" / "manifest.json").read_text())
    assert len(seen) == len(set(seen)) == manifest["samples"]
    assert len(logged(tmp_path / "run", "metrics/eval/AnswerLoss")) >= len(lines) // 2


def test_missing_held_out_set_is_one_line(raw_sample: Path, mds_sample: Path, tmp_path: Path) -> None:
    config = held_out_config(raw_sample, tmp_path, f"train_loader.dataset.remote={mds_sample}")
    with pytest.raises(UserError, match=r"eval_loader\.dataset\.remote: no folder"):
        train(config)


def test_a_set_that_has_grown_is_a_series_of_its_own(
    raw_sample: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = held_out_config(raw_sample, tmp_path, "eval_interval=1ba", "max_duration=1ba", "convert.num_samples=18")
    convert(config.convert)
    assert train(config) == 0
    mds = tmp_path / "mds-eval"
    before = json.loads((mds / "manifest.json").read_text())["samples"]
    convert(held_out_config(raw_sample, tmp_path).convert)
    after = json.loads((mds / "manifest.json").read_text())["samples"]
    assert before < after
    longer = ("eval_interval=1ba", "max_duration=2ba")
    with caplog.at_level("INFO"):
        assert train(held_out_config(raw_sample, tmp_path, *longer)) == 0
    said = f"has {after} samples, and had {before} when the run began: its values go on as metrics/eval-{after}"
    assert caplog.text.count(said) == 1
    assert list(logged(tmp_path / "run", "metrics/eval/AnswerLoss")) == [1]
    assert list(logged(tmp_path / "run", f"metrics/eval-{after}/AnswerLoss")) == [2]


def test_a_series_is_of_one_set() -> None:
    def set_of(*sizes: int) -> Snapshot:
        parts = [Generation(f"gen-{number:05d}", size, 1, f"{size}") for number, size in enumerate(sizes)]
        return Snapshot("mds-eval", tuple(parts), ())

    starts: list[dict[str, Any]] = [{"launch": 1}]
    series = []
    for held_out in (set_of(10), set_of(10), set_of(10, 5), set_of(8, 7), set_of(10), set_of(10, 5)):
        facts = eval_facts(held_out, starts)
        starts.append({"launch": len(starts) + 1, "eval": facts})
        series.append(facts["series"])
    assert series[:3] == ["eval", "eval", "eval-15"]
    assert series[3].startswith("eval-15-"), "as many samples, but others"
    assert series[4:] == ["eval", "eval-15"]
