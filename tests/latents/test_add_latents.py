"""World latents computed once: the same loss without a VAE, whatever stops or changes meanwhile."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from streaming import StreamingDataset

from tests.conftest import smoke_config
from tests.helpers.loader import open_data
from tests.helpers.tensorboard import losses
from tests.helpers.terminal import seen
from theworld.config.schema import Config
from theworld.data.cache.latent_store import latent_wish
from theworld.data.latents.latent_encoder import LatentEncoder, from_bytes, sample_pixels
from theworld.data.latents.record import LatentRecord
from theworld.data.shards.add_latents import FRAGMENTS, add_latents
from theworld.data.shards.convert import convert
from theworld.data.shards.dataset import read_shards
from theworld.data.shards.pictures import Pictures
from theworld.errors import UserError
from theworld.model.base import resolve_vae
from theworld.train import run
from theworld.train.data import TrainData


def config_on(raw: Path, mds: Path, folder: Path, *overrides: str) -> Config:
    return smoke_config(
        raw,
        mds,
        f"save_folder={folder / 'run'}",
        f"train_loader.dataset.local={folder / 'cache'}",
        "global_train_batch_size=4",
        "train_loader.num_workers=0",
        "convert.workers=1",
        *overrides,
    )


@pytest.fixture(scope="module")
def with_latents(raw_sample: Path, mds_sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The converted sample with its latents."""
    folder = tmp_path_factory.mktemp("latents")
    mds = Path(shutil.copytree(mds_sample, folder / "mds"))
    shown: list[str] = []
    with seen(shown):
        added = add_latents(config_on(raw_sample, mds, folder))
    assert (added.samples, added.before, added.generations) == (26, 0, ["mds/gen-00000"])
    assert re.search(r"gen-00000: 100%.* 26/26 .* samples/s", shown[0]), "a bar on a terminal"
    return mds


@pytest.fixture
def copy(with_latents: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(with_latents, tmp_path / "mds"))


def open_with_latents(config: Config) -> TrainData:
    return open_data(config, wish=latent_wish(config.model, config.train_loader.dataset))


def files_of(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_ino, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".lock" not in path.name
    }


def test_images_are_not_touched_and_streaming_reads_both(mds_sample: Path, with_latents: Path) -> None:
    before = {name: content for name, (_, content) in files_of(mds_sample).items()}
    after = {name: content for name, (_, content) in files_of(with_latents).items()}
    assert {name: after[name] for name in before} == before
    assert all(name.startswith("world_latents/") for name in after.keys() - before.keys())
    images = StreamingDataset(local=str(with_latents), batch_size=1)
    latents = StreamingDataset(local=str(with_latents / "world_latents"), batch_size=1)
    assert [images[n]["id"] for n in range(26)] == [latents[n]["id"] for n in range(26)]
    assert len(latents[0]["world_latents"]) == 2 * 16 * 8 * 8
    record = json.loads((with_latents / "world_latents" / "manifest.json").read_text())["world_latents"]
    assert (record["vae"], record["world_image_size"], record["draw_bboxes"]) == ("builtin:tiny", 64, True)
    assert record["fingerprint"]


def test_a_second_run_writes_nothing(raw_sample: Path, with_latents: Path, tmp_path: Path) -> None:
    before = files_of(with_latents)
    added = add_latents(config_on(raw_sample, with_latents, tmp_path))
    assert (added.samples, added.before) == (0, 26)
    assert files_of(with_latents) == before


def test_what_is_encoded_together_does_not_depend_on_what_an_earlier_run_has_finished(
    raw_sample: Path, mds_sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Floats are rounded by what they are computed beside: the last sample of a shard alone, or with the next one's."""
    mds = Path(shutil.copytree(mds_sample, tmp_path / "mds"))
    sizes = [shard["samples"] for shard in read_shards(mds / "gen-00000")]
    assert any(size % 2 for size in sizes[:-1])
    together: list[int] = []
    encode = LatentEncoder.__call__

    def noted(self: LatentEncoder, pixels: torch.Tensor) -> list[bytes]:
        together.append(len(pixels))
        return encode(self, pixels)

    monkeypatch.setattr(LatentEncoder, "__call__", noted)
    add_latents(config_on(raw_sample, mds, tmp_path))
    assert together == [batch for size in sizes for batch in [2] * (size // 2) + [1] * (size % 2)]


def test_latents_are_those_of_the_models_own_encoder(raw_sample: Path, with_latents: Path, tmp_path: Path) -> None:
    from theworld.model import load_model

    config = config_on(raw_sample, with_latents, tmp_path)
    stored = next(iter(open_with_latents(config).spec.dataloader))
    config.train_loader.dataset.world_latents = False
    pixels = next(iter(open_with_latents(config).spec.dataloader))
    assert stored["sample_ids"] == pixels["sample_ids"]
    assert "world_pixel_values" not in stored
    with torch.no_grad():
        expected = load_model(config.model).model.get_world_latents(pixels["world_pixel_values"])
    assert stored["world_latents"].dtype == torch.bfloat16
    torch.testing.assert_close(stored["world_latents"].float(), expected, rtol=2**-8, atol=1e-6)


def test_latents_of_bytes_are_those_of_floats_to_the_bit(mds_sample: Path) -> None:
    """The VAE's float pixels are made where it runs; the stored latents do not show where that was."""
    record = LatentRecord("", None, None, world_image_size=64, draw_bboxes=True)
    dataset = StreamingDataset(local=str(mds_sample / "gen-00000"), batch_size=1)
    pixels = torch.stack([sample_pixels(dataset[index], record) for index in range(3)])
    assert pixels.dtype == torch.uint8
    encoder = LatentEncoder(resolve_vae("builtin:tiny").folder, "cpu")
    assert encoder(pixels) == encoder(torch.from_numpy(pixels.numpy() / np.float32(127.5) - np.float32(1)))


def test_training_on_latents_has_the_same_loss_without_a_vae(
    raw_sample: Path, with_latents: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = config_on(raw_sample, with_latents, tmp_path / "latents")
    shutil.copytree(with_latents, tmp_path / "without", ignore=shutil.ignore_patterns("world_latents"))
    plain = config_on(raw_sample, tmp_path / "without", tmp_path / "plain")
    with caplog.at_level("INFO"):
        assert run.train(config) == 0
        assert "the VAE is not built" in caplog.text
        caplog.clear()
        assert run.train(plain) == 0
        assert "the VAE is not built" not in caplog.text
    assert len(losses(config.save_folder)) == 7
    assert losses(config.save_folder) == pytest.approx(losses(plain.save_folder), rel=5e-3)
    # A run goes on though the latents have come or gone since: frozen weights are not in its checkpoints.
    plain.train_loader.dataset.remote, plain.max_duration = str(with_latents), "2ep"
    assert run.train(plain) == 0
    assert len(losses(plain.save_folder)) == 14


def test_a_vae_of_an_earlier_stage_is_not_replaced_by_latents_of_the_base(
    raw_sample: Path, with_latents: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    vae = config_on(raw_sample, with_latents, tmp_path / "vae", "model.freeze.vae=false", "max_duration=1ba")
    assert run.train(vae) == 0
    load = (f"load_path={tmp_path / 'vae' / 'run' / 'ep0-ba1-rank0.pt'}", "load_weights_only=true", "max_duration=1ba")
    with caplog.at_level("INFO"):
        assert run.train(config_on(raw_sample, with_latents, tmp_path / "next", *load)) == 0
    assert "the VAE is not built" not in caplog.text


def test_goes_on_after_the_last_finished_shard(raw_sample: Path, copy: Path, tmp_path: Path) -> None:
    """What a kill leaves: some shards with their fragments, one half written, no index."""
    whole = files_of(copy / "world_latents")
    generation = copy / "world_latents" / "gen-00000"
    shards = json.loads((generation / "index.json").read_text())["shards"]
    killed = generation.rename(copy / "world_latents" / ".gen-00000")
    for name in ("index.json", "manifest.json"):
        (copy / "world_latents" / name).unlink()
    (killed / "index.json").unlink()
    (killed / FRAGMENTS).mkdir()
    (killed / ".aside-x").mkdir()
    for number, entry in enumerate(shards[:3]):
        (killed / FRAGMENTS / f"{number:05}.json").write_text(json.dumps(entry))
    kept = {path: path.stat().st_ino for path in sorted(killed.glob("*.mds"))[:2]}
    os.truncate(killed / "shard.00002.mds", 100)
    assert add_latents(config_on(raw_sample, copy, tmp_path)).samples == 26
    after = files_of(copy / "world_latents")
    assert {name: content for name, (_, content) in after.items()} == {n: content for n, (_, content) in whole.items()}
    assert {(generation / path.name).stat().st_ino for path in kept} == set(kept.values())


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("train_loader.dataset.draw_bboxes=false", "draw_bboxes: false, but the world latents are of pictures with"),
        ("model.world_image_size=32", "model.world_image_size: 32, but the world latents are of 64"),
        ("model.cosmos={other}", "model.cosmos: .*, but the world latents are of builtin:tiny"),
    ],
)
def test_latents_of_another_kind_are_one_line(
    raw_sample: Path, with_latents: Path, tmp_path: Path, override: str, says: str
) -> None:
    from safetensors.torch import load_file, save_file

    from theworld.model.tiny import tiny_folder

    other = Path(shutil.copytree(tiny_folder() / "cosmos", tmp_path / "cosmos"))
    file = other / "vae" / "diffusion_pytorch_model.safetensors"
    save_file({name: weight * 2 for name, weight in load_file(file).items()}, file)
    config = config_on(raw_sample, with_latents, tmp_path, override.format(other=other))
    for action in (add_latents, run.train):
        with pytest.raises(UserError, match=says) as error:
            action(config)
        assert "\n" not in str(error.value)
    config.train_loader.dataset.world_latents = False
    batch = next(iter(open_with_latents(config).spec.dataloader))
    assert "world_pixel_values" in batch


def test_a_generation_without_latents(raw_sample: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    raw = tmp_path / "raw"
    (raw / "images").mkdir(parents=True)
    os.link(raw_sample / "openspatial.json", raw / "openspatial.json")
    images = sorted((raw_sample / "images").iterdir())
    for image in images[:9]:
        os.link(image, raw / "images" / image.name)
    config = config_on(raw, tmp_path / "mds", tmp_path)
    convert(config.convert)
    add_latents(config)
    data = open_with_latents(config)
    batches: list[dict[str, Any]] = []
    for number, batch in enumerate(data.spec.dataloader):
        batches.append(batch)
        if number == 0:  # more arrives while the pass runs, but its latents come later
            for image in images[9:14]:
                os.link(image, raw / "images" / image.name)
            convert(config.convert)
        if number == 1:
            caplog.clear()
    assert "5 new samples have no world latents yet and wait" in caplog.text
    ids = [
        name for batch in batches for name, why in zip(batch["sample_ids"], batch["skipped"], strict=True) if not why
    ]
    assert len(set(ids)) == len(ids) == 9
    data.close()

    config.train_loader.dataset.world_latents = True
    with pytest.raises(UserError, match=r"1 of 2 generations have no world latents; run convert/add_latents\.py"):
        open_with_latents(config)
    config.train_loader.dataset.world_latents = None
    assert "world_pixel_values" in next(iter(open_with_latents(config).spec.dataloader))
    assert "so all are computed while training" in caplog.text
    assert add_latents(config).samples == 5
    assert "world_latents" in next(iter(open_with_latents(config).spec.dataloader))


def test_latents_of_another_data_set_are_refused(raw_sample: Path, copy: Path, tmp_path: Path) -> None:
    """The data set was converted anew in another order, and the latents stayed."""
    config = config_on(raw_sample, copy, tmp_path)
    store = copy / "world_latents" / "gen-00000"
    shards = sorted(store.glob("*.mds"))
    index = json.loads((store / "index.json").read_text())["shards"]
    same = next(n for n, entry in enumerate(index[1:], 1) if entry["samples"] == index[0]["samples"])
    contents = [shards[n].read_bytes() for n in (0, same)]
    root = json.loads((copy / "world_latents" / "index.json").read_text())
    shards[0].write_bytes(contents[1])
    shards[same].write_bytes(contents[0])
    entries = root["shards"]
    for key in ("bytes", "hashes"):
        first, second = entries[0]["raw_data"], entries[same]["raw_data"]
        first[key], second[key] = second[key], first[key]
    (copy / "world_latents" / "index.json").write_text(json.dumps(root))
    with pytest.raises(UserError, match="it is of another data set"):
        list(open_with_latents(config).spec.dataloader)


def test_no_data_set_or_no_world_is_one_line(raw_sample: Path, with_latents: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no data set there; run convert/to_mds\.py"):
        add_latents(config_on(raw_sample, tmp_path / "nothing", tmp_path))
    with pytest.raises(UserError, match="enable_world: false"):
        add_latents(config_on(raw_sample, with_latents, tmp_path, "model.enable_world=false"))
    with pytest.raises(UserError, match="latents are of no use"):
        run.train(
            config_on(
                raw_sample, with_latents, tmp_path, "train_loader.dataset.world_latents=true", "model.freeze.vae=false"
            )
        )


def test_bytes_that_are_no_latent_are_refused() -> None:
    with pytest.raises(ValueError, match="not a square latent"):
        from_bytes(b"\0" * 100)


def test_a_killed_worker_is_one_line_that_names_the_setting(
    raw_sample: Path, mds_sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mds = Path(shutil.copytree(mds_sample, tmp_path / "mds"))
    monkeypatch.setattr(Pictures, "__getitem__", lambda *_: os.kill(os.getpid(), signal.SIGBUS))
    with pytest.raises(UserError, match=r"worker was killed .*Bus error.*/dev/shm is full.*convert\.workers\)$"):
        add_latents(config_on(raw_sample, mds, tmp_path))
