"""Keys of the YAML that no other test would miss: what each of them changes in a run."""

from __future__ import annotations

import json
import re
from contextlib import redirect_stderr
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from composer.core import Callback, State
from composer.loggers import Logger
from streaming import StreamingDataset

from tests.conftest import run_config
from tests.helpers.launcher import composer, run
from theworld.checkpoint.on_disk import newest_whole_checkpoint
from theworld.config.schema import Config
from theworld.data.batches.order import Shuffle, Stage, pass_order
from theworld.errors import UserError
from theworld.model.build import load_model
from theworld.train.run import train

LINE = re.compile(r"^\[(epoch=\S+\]\[)?batch=\d+/", flags=re.MULTILINE)
"""How a plain line of progress begins."""


class Observer(Callback):
    """Named in the YAML as a user's own callback: keeps what only a look into the running trainer shows."""

    prefetch_factors: ClassVar[list[int | None]] = []
    evaluated: ClassVar[list[int]] = []
    """Batches of each evaluation. Both are the class's: the trainer makes the object and does not hand it out."""

    def fit_start(self, state: State, logger: Logger) -> None:
        self.prefetch_factors.append(getattr(state.train_dataloader, "prefetch_factor", None))

    def eval_end(self, state: State, logger: Logger) -> None:
        self.evaluated.append(int(state.eval_timestamp.batch))


@dataclass(frozen=True)
class Observed:
    """A run and what was seen of it.

    Attributes:
        prefetch_factors: of the loader, at each start of training.
        evaluated: batches of each evaluation.
        stderr: all that was printed.
    """

    config: Config
    prefetch_factors: list[int | None]
    evaluated: list[int]
    stderr: str


@pytest.fixture(scope="module")
def observed(raw_sample: Path, mds_sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Observed:
    """A run to batch 6 of 7 with the keys set to what is not their default."""
    folder = tmp_path_factory.mktemp("keys")
    config = run_config(
        raw_sample,
        mds_sample,
        folder,
        f"eval_loader.dataset.remote={mds_sample}",
        f"eval_loader.dataset.local={folder / 'cache-eval'}",
        "eval_loader.num_workers=0",
        "eval_interval=3ba",
        "eval_subset_num_batches=2",
        "train_loader.prefetch_factor=5",
        "train_loader.dataset.shuffle_seed=99",
        "train_loader.dataset.num_canonical_nodes=2",
        "train_loader.dataset.shuffle_block_size=5",
        "progress_bar=false",
        "log_interval=3ba",
        "max_duration=6ba",
        f"callbacks={{'{__name__}:Observer': {{}}}}",
    )
    Observer.prefetch_factors.clear()
    Observer.evaluated.clear()
    with (folder / "stderr").open("w") as stream, redirect_stderr(stream):
        assert train(config) == 0
    return Observed(config, list(Observer.prefetch_factors), list(Observer.evaluated), (folder / "stderr").read_text())


def ledger_of(config: Config) -> list[dict[str, Any]]:
    text = (Path(str(config.save_folder)) / "ledger" / "rank0.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_shuffle_keys_make_the_order_of_the_pass(observed: Observed, mds_sample: Path) -> None:
    trained = [name for line in ledger_of(observed.config)[:6] for name in line["ids"]]
    data_set = StreamingDataset(local=str(mds_sample), batch_size=1)
    ids = [str(data_set[index]["id"]) for index in range(26)]

    def order(seed: int, num_canonical_nodes: int, block_size: int) -> list[str]:
        shuffle = Shuffle(True, seed, 0, num_canonical_nodes, block_size)
        sizes = [int(size) for size in data_set.samples_per_shard]
        return [ids[index] for index in pass_order([Stage(0, 26, 4)], sizes, shuffle)[:24]]

    assert trained == order(99, 2, 5)
    others = [order(17, 2, 5), order(99, 8, 5), order(99, 2, 4096)]
    assert trained not in others, "the defaults must not look the same"


def test_prefetch_factor_is_the_loaders(observed: Observed) -> None:
    assert observed.prefetch_factors == [5]


def test_eval_subset_num_batches_ends_each_evaluation(observed: Observed) -> None:
    assert observed.evaluated == [2, 2]


def test_log_interval_is_between_plain_lines(observed: Observed) -> None:
    """Composer prints the first batch always."""
    printed = re.findall(r"^\[batch=(\d+)/6\]", observed.stderr, flags=re.MULTILINE)
    assert printed == ["1", "3", "6"]


def test_autoresume_goes_on_or_refuses_and_progress_bar_is_a_bar(observed: Observed, tmp_path: Path) -> None:
    config = replace(observed.config, max_duration="1ep", autoresume=False, eval_loader=None, progress_bar=True)
    with pytest.raises(UserError, match=r"autoresume: false, but .* holds the checkpoints of an earlier run"):
        train(config)
    assert len(ledger_of(config)) == 6
    with (tmp_path / "stderr").open("w") as stream, redirect_stderr(stream):
        assert train(replace(config, autoresume=True)) == 0
    # The start that was refused had the folder for a moment, and with it the number 2.
    assert [(line["batch"], line["launch"]) for line in ledger_of(config)] == [*((i, 1) for i in range(6)), (6, 3)]
    # Composer draws its bar for terminals; where there is none, that no plain lines come is what shows the key.
    assert LINE.search(observed.stderr)
    assert not LINE.search((tmp_path / "stderr").read_text())


def test_gradients_are_clipped_as_the_yaml_says(raw_sample: Path, mds_sample: Path, tmp_path: Path) -> None:
    """One step of plain gradient descent at rate 1: the weights move by the gradient, whose norm is the threshold."""
    threshold = 0.01
    config = run_config(
        raw_sample,
        mds_sample,
        tmp_path,
        "train_loader.num_workers=0",
        "max_duration=1ba",
        f"algorithms.gradient_clipping.clipping_threshold={threshold}",
    )
    config.optimizer, config.scheduler = {"name": "sgd", "lr": 1.0}, {"name": "constant"}
    assert train(config) == 0
    assert distance_moved(config) == pytest.approx(threshold, rel=1e-3)


def distance_moved(config: Config) -> float:
    """Euclidean norm of what training changed of the weights."""
    checkpoint = newest_whole_checkpoint(Path(str(config.save_folder)))
    assert checkpoint is not None
    after = torch.load(checkpoint.path, weights_only=False)["state"]["model"]
    # Tied weights are once among the parameters and twice in the checkpoint.
    before = load_model(config.model, seed=config.seed).named_parameters()
    changes = [(after[f"model.{name}"] - value).flatten() for name, value in before if value.requires_grad]
    return float(torch.cat(changes).norm())


LATE_RANK = """
import signal

import torch
from composer.core import Callback


class LateRank(Callback):
    def batch_end(self, state, logger):
        if torch.distributed.get_rank() == 1:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.pause()
"""


@pytest.mark.slow
@pytest.mark.dist
def test_a_rank_waits_for_the_others_as_long_as_dist_timeout(mds_sample: Path, tmp_path: Path) -> None:
    (tmp_path / "late_rank.py").write_text(LATE_RANK)
    command = composer(2, "yamls/smoke.yaml", f"train_loader.dataset.remote={mds_sample}")
    command += [f"train_loader.dataset.local={tmp_path / 'cache'}", f"save_folder={tmp_path / 'run'}"]
    command += ["train_loader.num_workers=0", "max_duration=3ba", "dist_timeout=20", "train_loader.dataset.patience=10"]
    command += [f"code_paths=[{tmp_path / 'late_rank.py'}]", "callbacks={'late_rank:LateRank': {}}"]
    assert run(command, tmp_path / "log") != 0
    assert "Timed out waiting 20000ms" in (tmp_path / "log").read_text()
