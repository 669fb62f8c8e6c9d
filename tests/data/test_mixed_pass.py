"""Passes over several data sets, through the real loader: growth, resume, a mixture that changes on the way."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from streaming import StreamingDataset

from tests.conftest import smoke_config
from tests.helpers.growing import arrive, flat
from tests.helpers.loader import ids_of, open_data, read_pass, smoke_on
from theworld.config.schema import Config
from theworld.data.batches.microbatches import split_by_length
from theworld.data.batches.sample_encoder import SampleEncoder
from theworld.data.cache.latent_store import latent_wish
from theworld.data.samples import decode_sample
from theworld.data.shards.add_latents import add_latents
from theworld.data.shards.convert import convert
from theworld.errors import UserError
from theworld.model.build import load_model, load_processor
from theworld.model.processing import without_world
from theworld.synthetic import generate
from theworld.train.check_training import check_training
from theworld.train.data import TrainData


@pytest.fixture(scope="module")
def other_raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine samples more."""
    folder = tmp_path_factory.mktemp("other")
    generate(folder, samples=9, seed=11, size=160, workers=1)
    return folder


@pytest.fixture(scope="module")
def other(other_raw: Path) -> Path:
    """As an MDS data set."""
    convert(smoke_config(other_raw, other_raw / "mds").convert)
    return other_raw / "mds"


def mixed(tmp_path: Path, sources: Sequence[dict[str, Any]], *overrides: str) -> Config:
    text = ", ".join("{" + ", ".join(f"{key}: {value}" for key, value in one.items()) + "}" for one in sources)
    return smoke_on(
        tmp_path / "none",
        tmp_path / "cache",
        "train_loader.dataset.remote=null",
        f"train_loader.datasets=[{text}]",
        *overrides,
    )


def names_in(raw: Path, prefix: str = "") -> list[str]:
    return [prefix + one["filename"] for one in json.loads((raw / "openspatial.json").read_text())]


def read_until(data: TrainData, batches: int) -> tuple[list[str], str]:
    """Ids of the first batches, and the state with which a run goes on from there."""
    found: list[str] = []
    loader = iter(data.spec.dataloader)
    for _ in range(batches):
        found += ids_of(next(loader))
    state = json.dumps(data.dataset.state_dict(len(found)))
    data.close()
    return found, state


def go_on(config: Config, state: str) -> TrainData:
    data = open_data(config)
    data.dataset.load_state_dict(state)
    return data


@pytest.mark.parametrize("workers", [0, 2])
def test_each_copy_once_under_the_name_of_its_data_set(
    raw_sample: Path, mds_sample: Path, other_raw: Path, other: Path, tmp_path: Path, workers: int
) -> None:
    sources = [{"name": "a", "remote": mds_sample}, {"name": "b.2", "remote": other, "repeat": 2}]
    data = open_data(mixed(tmp_path, sources, f"train_loader.num_workers={workers}"))
    first, second = read_pass(data), read_pass(data)
    due = Counter(names_in(raw_sample, "a/") + 2 * names_in(other_raw, "b.2/"))
    assert Counter(first) == Counter(second) == due
    assert first != second
    data.close()


def test_a_pass_goes_on_where_it_was(mds_sample: Path, other: Path, tmp_path: Path) -> None:
    sources = [{"name": "a", "remote": mds_sample, "choose": 7}, {"name": "b", "remote": other, "choose": 13}]
    config = mixed(tmp_path, sources)
    data = open_data(config)
    passes = [read_pass(data) for _ in range(4)]
    data.close()
    data = open_data(config)
    assert read_pass(data) == passes[0]
    found, state = read_until(data, 3)
    data = go_on(config, state)
    found += read_pass(data)
    # Which samples' turn it is goes on as well.
    assert [found, read_pass(data), read_pass(data)] == passes[1:]
    data.close()
    of_a = Counter(name for one in passes for name in one if name.startswith("a/"))
    assert sum(of_a.values()) == 28
    assert sorted(of_a.values()) == [1] * 24 + [2] * 2, "all 26 in four passes of 7, and 2 of them again"


def test_new_samples_join_with_repeat_and_wait_with_choose(
    raw_sample: Path, half_downloaded: Path, other: Path, tmp_path: Path
) -> None:
    small = smoke_config(half_downloaded, tmp_path / "mds")
    for rule, value, expected in (("repeat", 2, 2 * 17 + 9), ("choose", 15, 15 + 9)):
        shutil.rmtree(tmp_path / "mds", ignore_errors=True)
        for image in sorted((half_downloaded / "images").iterdir())[10:]:
            image.unlink()
        convert(small.convert)
        one = 1 if rule == "repeat" else 9
        sources = [{"name": "a", "remote": tmp_path / "mds", rule: value}, {"name": "b", "remote": other, rule: one}]
        data = open_data(mixed(tmp_path, sources))
        batches = []
        for number, batch in enumerate(data.spec.dataloader):
            batches.append(ids_of(batch))
            if number == 1:
                arrive(raw_sample, half_downloaded, 17)
                convert(small.convert)
                data.dataset.growth_wanted = True
        assert len(flat(batches)) == expected, rule
        of_a = Counter(name for name in flat(batches) if name.startswith("a/"))
        assert len(of_a) == (17 if rule == "repeat" else 10)
        of_next = {name for name in read_pass(data) if name.startswith("a/")}
        assert data.dataset.sources.samples[0] == 17
        if rule == "choose":
            assert len(of_next) == 15, "of the 17 that are there now"
        data.close()


def test_another_mixture_is_for_the_next_pass(
    raw_sample: Path, mds_sample: Path, other_raw: Path, other: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = [{"name": "a", "remote": mds_sample}, {"name": "gone", "remote": other, "repeat": 2}]
    after = [{"name": "new", "remote": other, "repeat": 3}, {"name": "a", "remote": mds_sample, "repeat": 2}]
    found, state = read_until(open_data(mixed(tmp_path, before)), 2)
    data = go_on(mixed(tmp_path, after), state)
    caplog.set_level("INFO")
    found += read_pass(data)
    assert Counter(found) == Counter(names_in(raw_sample, "a/") + 2 * names_in(other_raw, "gone/"))
    assert Counter(read_pass(data)) == Counter(2 * names_in(raw_sample, "a/") + 3 * names_in(other_raw, "new/"))
    data.close()


def test_from_one_data_set_to_several_and_back(
    raw_sample: Path, mds_sample: Path, other_raw: Path, other: Path, tmp_path: Path
) -> None:
    alone = smoke_on(mds_sample, tmp_path / "cache")
    both = mixed(tmp_path, [{"name": "a", "remote": mds_sample}, {"name": "b", "remote": other}])
    found, state = read_until(open_data(alone), 3)
    data = go_on(both, state)
    found += read_pass(data)
    assert sorted(found) == sorted(names_in(raw_sample)), "the pass that has begun keeps its ids"
    found, state = read_until(data, 2)
    data = go_on(alone, state)
    found += read_pass(data)
    assert sorted(found) == sorted(names_in(raw_sample, "a/") + names_in(other_raw, "b/"))
    assert sorted(read_pass(data)) == sorted(names_in(raw_sample))
    data.close()


def test_the_data_of_a_pass_that_goes_on_must_be_there(
    raw_sample: Path, mds_sample: Path, other: Path, tmp_path: Path
) -> None:
    shutil.copytree(other, tmp_path / "moved")
    both = mixed(tmp_path, [{"name": "a", "remote": mds_sample}, {"name": "b", "remote": tmp_path / "moved"}])
    _, state = read_until(open_data(both), 2)
    (tmp_path / "moved").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"the pass that goes on has samples of b, which is gone: .*no index\.json"):
        go_on(mixed(tmp_path, [{"name": "a", "remote": mds_sample}]), state)
    moved = mixed(tmp_path, [{"name": "a", "remote": mds_sample}, {"name": "b", "remote": tmp_path / "elsewhere"}])
    data = go_on(moved, state)
    assert len(read_pass(data)) == 26 + 9 - 8
    data.close()
    another = mixed(tmp_path, [{"name": "a", "remote": mds_sample}, {"name": "b", "remote": mds_sample}])
    with pytest.raises(UserError, match="gen-00000 has changed, so this is not the data set of the checkpoint"):
        go_on(another, state)


@pytest.mark.parametrize(
    "change",
    [
        {"copies": 10**9},
        {"extras": 10**12},
        {"samples": 10**12},
        {"more": "7/2"},
        {"more": "nonsense"},
        {"seed": None},
        {"after": -7},
    ],
    ids=str,
)
def test_a_mixture_that_no_run_has_written_is_one_line(
    mds_sample: Path, other: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    """A checkpoint may come from anywhere; what it says must not fill the memory."""
    config = mixed(tmp_path, [{"name": "a", "remote": mds_sample}, {"name": "b", "remote": other}])
    _, text = read_until(open_data(config), 2)
    state = json.loads(text)
    state["mix"]["portions"][1] |= change
    if "samples" in change:
        state["mix"]["known"][0][1] = change["samples"]
    state["stages"][0]["samples"] = sum(
        one["copies"] * one["samples"] + one["extras"] for one in state["mix"]["portions"]
    )
    with pytest.raises(UserError, match="the checkpoint's place in its data set cannot be read"):
        go_on(config, json.dumps(state))


def test_a_pass_that_had_ended_goes_on_with_what_has_come_for_it(
    raw_sample: Path, half_downloaded: Path, other: Path, tmp_path: Path
) -> None:
    small = smoke_config(half_downloaded, tmp_path / "mds")
    convert(small.convert)
    config = mixed(tmp_path, [{"name": "a", "remote": tmp_path / "mds", "repeat": 1.5}, {"name": "b", "remote": other}])
    data = open_data(config)
    found = read_pass(data)
    state = json.dumps(data.dataset.state_dict(0))
    data.close()
    arrive(raw_sample, half_downloaded, 17)
    convert(small.convert)
    data = go_on(config, state)
    assert data.dataset.reopen_pass() is not None
    found += read_pass(data)
    times = Counter(name for name in found if name.startswith("a/"))
    assert sum(times.values()) == 26, "1.5 x 17 is 25.5, a half up"
    assert sorted(times.values()) == [1] * 8 + [2] * 9
    data.close()


FAULTS = [
    ("[]", "train_loader.datasets: empty"),
    ("[{name: a, remote: HERE}, {name: a, remote: THERE}]", "datasets[1].name: a is the name of another one"),
    ("[{name: a, remote: HERE}, {name: b, remote: HERE}]", "datasets[1]: b is the same data set as a; repeat gives"),
    ("[{name: a/b, remote: HERE}]", "datasets[0].name: 'a/b': expected letters, digits, dots"),
    ("[{name: a}]", "datasets[0]: a: set remote, or local"),
    ("[{name: a, remote: /no/such}]", "datasets[0].remote: no folder /no/such"),
    ("[{name: a, remote: HERE, repeat: 2, choose: 3}]", "datasets[0]: a has repeat and choose; give one of them"),
    ("[{name: a, remote: HERE, repeat: 0}]", "datasets[0].repeat: 0.0: expected a number above 0"),
    ("[{name: a, remote: HERE, proportion: -1}]", "datasets[0].proportion: -1.0: expected a number above 0"),
    (
        "[{name: a, remote: HERE, repeat: 2}, {name: b, remote: THERE, choose: 2}]",
        "train_loader.datasets: choose and repeat are mixed; give all of them one of repeat, choose, proportion",
    ),
    ("[{name: a, remote: HERE, proportion: 2}, {name: b, remote: THERE}]", "proportion and repeat are mixed"),
]


@pytest.mark.parametrize(("sources", "line"), FAULTS, ids=[line[:40] for _, line in FAULTS])
def test_one_line_for_what_cannot_be_mixed(
    sources: str, line: str, mds_sample: Path, other: Path, tmp_path: Path
) -> None:
    text = sources.replace("THERE", str(other)).replace("HERE", str(mds_sample))
    config = smoke_on(tmp_path / "none", None, "train_loader.dataset.remote=null", f"train_loader.datasets={text}")
    with pytest.raises(UserError) as fault:
        check_training(config, ranks=1)
    assert line in str(fault.value)
    assert "\n" not in str(fault.value)


def test_what_stands_beside_the_data_sets_is_refused(mds_sample: Path, tmp_path: Path) -> None:
    source = f"train_loader.datasets=[{{name: a, remote: {mds_sample}}}]"
    with pytest.raises(
        UserError, match=r"train_loader\.dataset\.remote: is set beside train_loader.datasets; set it to"
    ):
        check_training(smoke_on(mds_sample, None, source), ranks=1)
    number = ["train_loader.dataset.remote=null", source, "train_loader.expected_samples=50"]
    with pytest.raises(
        UserError, match=r"train_loader\.expected_samples: 50, but with train_loader.datasets it is auto"
    ):
        check_training(smoke_on(mds_sample, None, *number), ranks=1)
    with pytest.raises(
        UserError, match=r"unknown key train_loader\.datasets\[0\]\.weight; known there are name, remote"
    ):
        smoke_on(mds_sample, None, source.replace("}]", ", weight: 2}]"))


def test_latents_are_those_of_each_sample_or_of_none(
    mds_sample: Path, other_raw: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Joined by the sample's place in its own data set; where one data set has none, all are computed."""
    ours, theirs = shutil.copytree(mds_sample, tmp_path / "a"), tmp_path / "b"
    convert(smoke_config(other_raw, theirs).convert)
    config = mixed(tmp_path, [{"name": "a", "remote": ours}, {"name": "b", "remote": theirs, "repeat": 2}])
    wish = latent_wish(config.model, config.train_loader.dataset)
    add_latents(smoke_on(ours, None))
    caplog.set_level("INFO")
    data = open_data(config, wish=wish)
    assert data.dataset.latents is None
    assert "b: no world latents, so those of all data sets are computed" in caplog.text
    assert "the VAE is not built" not in caplog.text, "said, and taken back in the next line"
    data.close()
    add_latents(smoke_on(theirs, None))
    data = open_data(config, wish=wish)
    assert caplog.text.count("world latents are there, the VAE is not built") == 2
    batches = list(data.spec.dataloader)  # each join compares the ids
    assert all("world_latents" in batch and not any(batch["skipped"]) for batch in batches[:-1])
    assert len(flat([ids_of(batch) for batch in batches])) == 26 + 2 * 9
    data.close()


# -- a data set with the world off


def world_tokens(batch: dict[str, Any], encoder: SampleEncoder) -> dict[str, int]:
    """Of each sample."""
    worlds = torch.tensor(encoder.processor.world_token_ids)
    counts = torch.isin(batch["input_ids"], worlds).sum(dim=1).tolist()
    return dict(zip(batch["sample_ids"], counts, strict=True))


def worldless_sources(mds_sample: Path, other: Path) -> list[dict[str, Any]]:
    return [{"name": "a", "remote": mds_sample}, {"name": "b", "remote": other, "repeat": 2, "world": "false"}]


def test_samples_of_a_data_set_with_the_world_off_have_no_world(mds_sample: Path, other: Path, tmp_path: Path) -> None:
    config = mixed(tmp_path, worldless_sources(mds_sample, other))
    data = open_data(config)
    processor = load_processor(config.model)
    whole = SampleEncoder(processor, config.train_loader.dataset.max_seq_len)
    plain = SampleEncoder(without_world(processor), whole.max_seq_len)
    stored = {one["id"]: one for one in StreamingDataset(local=str(other), batch_size=1)}
    model = load_model(config.model).eval()
    seen: Counter[str] = Counter()
    for batch in data.spec.dataloader:
        counts = world_tokens(batch, whole)
        for row, name in enumerate(batch["sample_ids"]):
            source, sample_id = name.split("/", 1)
            seen[source] += batch["skipped"][row] == ""
            assert counts[name] == (0 if source == "b" else processor.num_world_tokens + 2)
            assert (batch["worlds"][row], batch["pictures"][row]) == (int(source == "a"), 1)
            if source == "b":
                ids = plain(decode_sample(stored[sample_id])).input_ids
                assert batch["input_ids"][row][: len(ids)].tolist() == ids
        assert len(batch.get("world_pixel_values", ())) == sum(batch["worlds"])
    assert seen == {"a": 26, "b": 18}
    data.close()
    forward_of_mixed_batch(model, config)


def forward_of_mixed_batch(model: Any, config: Config) -> None:
    """A batch of both gives what its samples give alone."""
    data = open_data(config)
    batch = next(one for one in data.spec.dataloader if 0 < sum(one["worlds"]) < len(one["worlds"]))
    data.close()
    names = ("input_ids", "attention_mask", "token_type_ids", "pixel_values", "world_pixel_values")
    with torch.no_grad():
        together = model(**{name: batch[name] for name in names}).logits
        for part in split_by_length(batch, 1):
            row = batch["sample_ids"].index(part["sample_ids"][0])
            alone = model(**{name: part[name] for name in names if name in part}).logits[0]
            torch.testing.assert_close(together[row, : len(alone)], alone, rtol=1e-4, atol=1e-4)


def test_a_pass_goes_on_with_the_world_off_for_a_data_set_that_is_configured_no_more(
    mds_sample: Path, other: Path, tmp_path: Path
) -> None:
    config = mixed(tmp_path, worldless_sources(mds_sample, other))
    _, state = read_until(open_data(config), 1)
    data = go_on(smoke_on(mds_sample, tmp_path / "cache"), state)
    batches = list(data.spec.dataloader)
    data.close()
    counts = {name: count for one in batches for name, count in zip(one["sample_ids"], one["worlds"], strict=True)}
    assert {name.split("/")[0]: count for name, count in counts.items()} == {"a": 1, "b": 0}
    assert not any(reason for one in batches[:-1] for reason in one["skipped"])


def test_a_data_set_with_the_world_off_needs_no_latents(
    mds_sample: Path, other: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ours = shutil.copytree(mds_sample, tmp_path / "a")
    config = mixed(tmp_path, worldless_sources(ours, other))
    wish = latent_wish(config.model, config.train_loader.dataset)
    add_latents(smoke_on(ours, None))
    data = open_data(config, wish=wish)
    batches = list(data.spec.dataloader)
    data.close()
    assert all(len(batch.get("world_latents", ())) == sum(batch["worlds"]) for batch in batches)
    assert not any("world_pixel_values" in batch for batch in batches)
    assert not any(reason for batch in batches[:-1] for reason in batch["skipped"])
    assert "no world latents" not in caplog.text
