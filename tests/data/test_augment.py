"""``transform: module:function``: chance follows from pass and sample, evaluation and stored latents are left alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.conftest import SMOKE_YAML
from theworld.config.load import load_config
from theworld.config.schema import Config
from theworld.data.latents.column import latent_column
from theworld.data.shards.convert import convert
from theworld.errors import UserError
from theworld.model.build import load_processor
from theworld.train.builders import build_evaluation, build_training
from theworld.train.data import TrainData
from theworld.train.registry import check_names

FUNCTIONS = """
import random
from dataclasses import replace
from PIL import Image

def tinted(sample):
    colour = tuple(random.Random(sample.seed).randrange(256) for _ in range(3))
    return replace(sample, image=Image.new("RGB", sample.image.size, colour))

def asked_again(sample):
    return replace(sample, turns=sample.turns[:1])

asked_again.leaves_pixels = True

def other(sample):
    return replace(sample, id="another")

def nothing(sample):
    pass

def failing(sample):
    raise KeyError("mean")

def forgiving(sample):
    return replace(sample, no_loss=None)
"""


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("code") / "my_changes.py"
    path.write_text(FUNCTIONS)
    return path


def config_with(code: Path, mds: Path, function: str | None, *overrides: str) -> Config:
    named = [f"transform=my_changes:{function}"] if function else []
    local = f"train_loader.dataset.local={code.parent / 'cache'}"
    arguments = [SMOKE_YAML, f"convert.out={mds}", local, f"code_paths=[{code}]", "global_train_batch_size=4"]
    config = load_config([*arguments, *named, *overrides])
    check_names(config)
    return config


def pictures(data: TrainData) -> dict[str, torch.Tensor]:
    """Id to ``pixel_values`` (3, H, W) of a pass."""
    found = {}
    for batch in data.spec.dataloader:
        for name, reason, pixels in zip(batch["sample_ids"], batch["skipped"], batch["pixel_values"], strict=True):
            if reason != "padding sample":
                found[name] = pixels
    return found


def passes(config: Config, count: int) -> Iterator[dict[str, torch.Tensor]]:
    data = build_training(config, load_processor(config.model))
    try:
        for _ in range(count):
            yield pictures(data)
            data.dataset.finish_pass()
    finally:
        data.close()


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> list[bool]:
    assert sorted(one) == sorted(other)
    assert len(one) == 26
    return [torch.equal(one[name], other[name]) for name in one]


def test_chance_follows_from_pass_and_sample(mds_sample: Path, code: Path) -> None:
    first, second = passes(config_with(code, mds_sample, "tinted", "train_loader.num_workers=2"), 2)
    other_order = ["train_loader.num_workers=0", "train_loader.dataset.shuffle_seed=99"]
    (again,) = passes(config_with(code, mds_sample, "tinted", *other_order), 1)
    (plain,) = passes(config_with(code, mds_sample, None), 1)
    assert all(same(first, again)), "neither workers nor the order change what is drawn"
    assert not any(same(first, second)), "each pass draws anew"
    assert not any(same(first, plain))
    assert len({tuple(pixels[:, 0, 0].tolist()) for pixels in first.values()}) > 20


def test_evaluation_is_never_changed(mds_sample: Path, code: Path) -> None:
    loader = f"eval_loader={{dataset: {{remote: {mds_sample}, local: {code.parent / 'held'}}}, num_workers: 0}}"
    plain, changed = (
        build_evaluation(config, load_processor(config.model))[""]
        for config in (config_with(code, mds_sample, function, loader) for function in (None, "tinted"))
    )
    try:
        assert all(same(pictures(plain), pictures(changed)))
    finally:
        plain.close()
        changed.close()


@pytest.mark.parametrize(
    ("function", "line"),
    [
        ("other", r"transform: gave sample another for sample \w+"),
        ("nothing", r"transform: gave None for sample \w+"),
        ("failing", r"transform: failed on sample \w+: KeyError: 'mean'"),
    ],
)
def test_a_function_that_does_not_keep_to_it(mds_sample: Path, code: Path, function: str, line: str) -> None:
    config = config_with(code, mds_sample, function, "train_loader.num_workers=0")
    with pytest.raises(UserError, match=line):
        next(passes(config, 1))


def test_what_carries_no_loss_cannot_be_given_some(mds_sample: Path, code: Path) -> None:
    config = config_with(code, mds_sample, "forgiving", "train_loader.num_workers=0")
    data = build_training(config, load_processor(config.model))
    try:
        sample = {**data.dataset.sample(0), "image": b"no picture"}
        encoded = data.dataset.prepare(sample, 0, 0)
    finally:
        data.close()
    assert encoded.no_loss is not None
    assert "image cannot be decoded" in encoded.no_loss


def test_a_wrong_name_is_refused_before_anything_loads(mds_sample: Path, code: Path) -> None:
    with pytest.raises(UserError, match=r"transform: my_changes:missing: .*expected package\.module:Class"):
        config_with(code, mds_sample, "missing")


def test_stored_latents(raw_sample: Path, code: Path) -> None:
    mds = code.parent / "mds"
    raw = [f"convert.json={raw_sample / 'openspatial.json'}", f"convert.images={raw_sample / 'images'}"]
    convert_settings = [*raw, "convert.world_latents=true", "convert.workers=1", "train_loader.num_workers=0"]
    config = config_with(code, mds, None, *convert_settings)
    convert(config.convert, latent_column(config))

    def with_latents(function: str, asked: str) -> bool:
        settings = [*convert_settings, f"train_loader.dataset.world_latents={asked}"]
        config = config_with(code, mds, function, *settings)
        data = build_training(config, load_processor(config.model))
        data.close()
        return data.dataset.latents is not None

    with pytest.raises(UserError, match="world_latents: true, but transform changes the pictures"):
        with_latents("tinted", "true")
    assert not with_latents("tinted", "null")
    assert with_latents("asked_again", "true")
    assert with_latents("asked_again", "null")
