"""``convert.world_latents: true``: a column of the shards, the same latents as those added later."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from streaming import StreamingDataset

from tests.conftest import smoke_config
from theworld.config.schema import Config
from theworld.data.cache.latent_store import latent_wish
from theworld.data.latents.column import latent_column
from theworld.data.latents.latent_encoder import from_bytes
from theworld.data.shards.add_latents import add_latents
from theworld.data.shards.convert import convert
from theworld.data.shards.verify import verify
from theworld.errors import UserError
from theworld.model.build import load_processor
from theworld.train.data import build_data


def config_on(raw: Path, mds: Path, *overrides: str) -> Config:
    settings = [f"train_loader.dataset.local={mds.parent / 'cache'}", "train_loader.num_workers=0", "convert.workers=1"]
    return smoke_config(raw, mds, "convert.world_latents=true", *settings, *overrides)


@pytest.fixture(scope="module")
def with_column(raw_sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Config:
    config = config_on(raw_sample, tmp_path_factory.mktemp("column") / "mds")
    assert convert(config.convert, latent_column(config)).written == 26
    return config


def test_streaming_reads_the_column_and_the_manifest_says_how_it_was_made(
    raw_sample: Path, mds_sample: Path, with_column: Config, tmp_path: Path
) -> None:
    out = Path(with_column.convert.out)
    samples = StreamingDataset(local=str(out), batch_size=1)
    found = {samples[number]["id"]: samples[number]["world_latents"] for number in range(26)}
    assert {len(latent) for latent in found.values()} == {2 * 16 * 8 * 8}
    record = json.loads((out / "manifest.json").read_text())["world_latents"]
    assert (record["vae"], record["world_image_size"], record["draw_bboxes"]) == ("builtin:tiny", 64, True)
    assert not verify(out).problems

    beside = smoke_config(raw_sample, tmp_path / "beside", "convert.workers=1")
    convert(beside.convert)
    add_latents(beside)
    later = StreamingDataset(local=str(tmp_path / "beside" / "world_latents"), batch_size=1)
    for number in range(26):
        expected, latent = from_bytes(later[number]["world_latents"]), from_bytes(found[later[number]["id"]])
        # Encoded in twos there and one by one here: float32 differs in its last bits, bfloat16 by one at most.
        torch.testing.assert_close(latent, expected, rtol=2**-7, atol=1e-5)


def test_training_reads_the_column(with_column: Config) -> None:
    wish = latent_wish(with_column.model, with_column.train_loader.dataset)
    data = build_data(with_column.train_loader, load_processor(with_column.model), 4, 17, True, wish)
    batch = next(iter(data.spec.dataloader))
    assert batch["world_latents"].shape == (4, 16, 8, 8)
    assert "world_pixel_values" not in batch
    data.close()


def test_add_latents_has_nothing_to_do(with_column: Config) -> None:
    added = add_latents(with_column)
    assert (added.samples, added.before) == (0, 26)
    assert not (Path(with_column.convert.out) / "world_latents").exists()


def test_a_data_set_that_was_begun_without_is_refused(raw_sample: Path, tmp_path: Path) -> None:
    plain = smoke_config(raw_sample, tmp_path / "mds", "convert.num_samples=5", "convert.workers=1")
    convert(plain.convert)
    config = config_on(raw_sample, tmp_path / "mds")
    with pytest.raises(UserError, match=r"convert\.world_latents: .* was begun with None.*add_latents\.py"):
        convert(config.convert, latent_column(config))
