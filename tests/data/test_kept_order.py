"""The shuffle of a pass is kept to its end, whatever the configuration or the release says meanwhile."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import smoke_config
from tests.helpers.growing import arrive, config_on, flat
from tests.helpers.loader import ids_of, open_data
from theworld.config.schema import Config, DatasetConfig
from theworld.data.batches.order import BLOCKS, WINDOW, pass_order
from theworld.data.shards.convert import convert
from theworld.errors import UserError
from theworld.train.data import first_shuffle


def test_a_pass_keeps_its_shuffle_and_the_next_one_has_that_of_the_configuration(
    raw_sample: Path, mds_sample: Path, tmp_path: Path
) -> None:
    def config(*settings: str) -> Config:
        keys = [f"train_loader.dataset.{setting}" for setting in (f"local={tmp_path}", *settings)]
        return smoke_config(raw_sample, mds_sample, "global_train_batch_size=4", "train_loader.num_workers=0", *keys)

    data = open_data(config("num_canonical_nodes=2", "shuffle_block_size=3"))
    loader = iter(data.spec.dataloader)
    seen = [ids_of(next(loader)) for _ in range(2)]
    state = json.loads(json.dumps(data.dataset.state_dict(8, True)))
    rest = [ids_of(batch) for batch in loader]
    next_pass = [ids_of(batch) for batch in data.spec.dataloader]
    data.close()
    assert len(set(flat(seen) + flat(rest))) == 26

    other = open_data(config())
    assert other.dataset.shuffle.num_canonical_nodes == 8, "null, on one node"
    assert other.dataset.shuffle.block_size == 4096
    other.dataset.load_state_dict(state)
    assert [ids_of(batch) for batch in other.spec.dataloader] == rest
    assert other.dataset.shuffle.num_canonical_nodes == 8
    others_next_pass = [ids_of(batch) for batch in other.spec.dataloader]
    assert sorted(flat(others_next_pass)) == sorted(flat(next_pass))
    assert others_next_pass != next_pass
    other.close()


def old_state(state: dict[str, Any]) -> dict[str, Any]:
    """As a release wrote it whose state had the version 1."""
    del state["shuffle"]["block_size"], state["shuffle"]["mixing"]
    if state["closed"]:
        del state["closed"]["shuffle"]
    return {**state, "version": 1}


def test_a_pass_of_an_earlier_release_ends_in_its_own_order(
    raw_sample: Path, half_downloaded: Path, tmp_path: Path
) -> None:
    config = config_on(half_downloaded, tmp_path, "train_loader.num_workers=0")
    convert(config.convert)
    data = open_data(config)
    data.dataset.shuffle = replace(data.dataset.shuffle, mixing=BLOCKS)
    sizes = data.dataset.snapshot.shard_sizes
    in_blocks = pass_order(data.dataset.stages, sizes, data.dataset.shuffle).tolist()
    assert in_blocks != data.dataset.order.tolist()
    state = old_state(data.dataset.state_dict(4, True))
    names = [str(data.dataset.shards[index]["id"]) for index in in_blocks]
    data.close()

    resumed = open_data(config)
    resumed.dataset.load_state_dict(state)
    assert flat([ids_of(batch) for batch in resumed.spec.dataloader]) == names[4:]
    assert resumed.dataset.shuffle.mixing == WINDOW
    after = old_state(resumed.dataset.state_dict(0, True))
    resumed.close()

    # The same pass goes on in its order when more has come, also from a state that was written after its end.
    arrive(raw_sample, half_downloaded, 26)
    convert(config.convert)
    grown = open_data(config)
    grown.dataset.load_state_dict(after)
    assert grown.dataset.reopen_pass() is not None
    assert grown.dataset.shuffle.mixing == BLOCKS
    rest = flat([ids_of(batch) for batch in grown.spec.dataloader])
    assert sorted(names + rest) == sorted(path.stem for path in (half_downloaded / "images").iterdir())
    grown.close()


def test_a_state_of_a_later_release_is_refused(raw_sample: Path, mds_sample: Path, tmp_path: Path) -> None:
    data = open_data(smoke_config(raw_sample, mds_sample, f"train_loader.dataset.local={tmp_path}"))
    with pytest.raises(UserError, match="another version"):
        data.dataset.load_state_dict({**data.dataset.state_dict(8, True), "version": 3})
    data.close()


@pytest.mark.parametrize(("nodes", "parts"), [(1, 8), (2, 8), (3, 12), (8, 8), (9, 9), (64, 64)])
def test_each_node_has_equally_many_parts(nodes: int, parts: int) -> None:
    assert first_shuffle(DatasetConfig(), 1, nodes).num_canonical_nodes == parts
    assert first_shuffle(DatasetConfig(num_canonical_nodes=6), 1, nodes).num_canonical_nodes == 6
