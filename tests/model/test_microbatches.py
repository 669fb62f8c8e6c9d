"""Samples of like length share a microbatch: same samples, same loss, little padding."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from composer import Trainer
from composer.utils import get_device
from torch.overrides import TorchFunctionMode

from tests.conftest import smoke_config
from tests.helpers.tensorboard import logged, losses
from theworld.config.schema import Config, FreezeConfig
from theworld.data.batches.collate import Collator, samples_in_batch, tokens_in_batch
from theworld.data.batches.microbatches import PER_TOKEN, PICTURES, Microbatch, padding_in, split_by_length
from theworld.data.batches.sample_encoder import SampleEncoder
from theworld.data.samples import decode_sample
from theworld.model import load_model, load_processor
from theworld.train import builders
from theworld.train.composer_model import ComposerTheWorld
from theworld.train.data import build_data
from theworld.train.metrics import AnswerLoss
from theworld.train.run import train

Batch = dict[str, Any]


@pytest.fixture(scope="module")
def batch(raw_sample: Path, processor: Any) -> Batch:
    """16 samples of the built-in data, the second without loss, the last a padding sample."""
    encoder = SampleEncoder(processor, 4096)
    encoded = []
    for entry in json.loads((raw_sample / "openspatial.json").read_text())[:16]:
        image = (raw_sample / "images" / f"{entry['filename']}.jpg").read_bytes()
        sample = {"id": entry["filename"], "image": image, "width": 256, "height": 256}
        encoded.append(encoder(decode_sample({**sample, **{k: entry[k] for k in ("conversations", "bbox")}})))
    made = Collator(processor)(encoded)
    made["labels"][[1, 15]] = -100
    made["skipped"][1], made["skipped"][15] = "image cannot be decoded", "padding sample"
    return made


@pytest.mark.parametrize("size", [1, 3, 4, 16, 40])
def test_every_sample_is_in_one_microbatch_as_it_was(batch: Batch, size: int) -> None:
    parts = split_by_length(batch, size)
    assert [len(part["sample_ids"]) for part in parts] == [min(size, 16 - done) for done in range(0, 16, size)]
    assert sorted(name for part in parts for name in part["sample_ids"]) == sorted(batch["sample_ids"])
    for part in parts:
        assert part.keys() == batch.keys()
        for row, name in enumerate(part["sample_ids"]):
            old = batch["sample_ids"].index(name)
            assert (part["skipped"][row], part["turns_cut"][row]) == (batch["skipped"][old], batch["turns_cut"][old])
            length = part["input_ids"].shape[1]
            for key, value in batch.items():
                if key in PER_TOKEN:
                    assert torch.equal(part[key][row], value[old, :length])
                elif isinstance(value, torch.Tensor):
                    assert torch.equal(part[key][row], value[old])
            assert not batch["attention_mask"][old, length:].any(), "only padding is cut off"


def test_counts_are_those_of_the_whole_batch(batch: Batch) -> None:
    parts = split_by_length(batch, 4)
    assert sum(samples_in_batch(part) for part in parts) == samples_in_batch(batch) == 15
    for kind in ("total", "loss_generating"):
        assert sum(tokens_in_batch(part)[kind] for part in parts) == pytest.approx(tokens_in_batch(batch)[kind])


def test_padding_is_under_five_percent_where_whole_batches_have_more(batch: Batch) -> None:
    def share(parts: Any) -> float:
        padding, tokens = (sum(counts) for counts in zip(*map(padding_in, parts), strict=True))
        return padding / tokens

    assert share([batch]) > 0.08
    assert share(split_by_length(batch, 4)) < 0.05


def test_loss_and_gradients_are_those_of_the_whole_batch(tiny_config: Callable[..., Any], batch: Batch) -> None:
    model = load_model(tiny_config(freeze=FreezeConfig(vision=False)))
    tensors = {name: value for name, value in batch.items() if isinstance(value, torch.Tensor)}
    whole = model(**tensors).loss
    whole.backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    answers = tokens_in_batch(batch)["loss_generating"]
    total = 0.0
    for part in split_by_length(batch, 3):
        weight = tokens_in_batch(part)["loss_generating"] / answers
        loss = model(**{name: value for name, value in part.items() if name in tensors}).loss * weight
        loss.backward()
        total += loss.item()
    assert total == pytest.approx(whole.item(), rel=1e-5)
    for name, gradient in expected.items():
        torch.testing.assert_close(model.get_parameter(name).grad, gradient, rtol=1e-3, atol=1e-5)


def test_a_deep_copy_shares_the_pictures_and_nothing_else(batch: Batch) -> None:
    microbatch = Microbatch(split_by_length(batch, 4)[0])
    copied = deepcopy(microbatch)
    assert type(copied) is Microbatch
    assert copied.keys() == microbatch.keys()
    assert {name for name, value in copied.items() if value is microbatch[name]} == {*PICTURES} & batch.keys()
    copied["input_ids"].zero_()
    assert microbatch["input_ids"].any()


class Watched(ComposerTheWorld):
    """Notes where the pixels lie that the forward pass gets, and those of the copy that Composer keeps meanwhile."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.train_metrics = {"AnswerLoss": AnswerLoss()}
        self.forwarded: list[int] = []
        self.kept: list[int] = []

    def forward(self, batch: Batch) -> Any:
        self.forwarded.append(batch["pixel_values"].data_ptr())
        return super().forward(batch)

    def eval_forward(self, batch: Batch, outputs: Any | None = None) -> Any:
        self.kept.append(batch["pixel_values"].data_ptr())
        return super().eval_forward(batch, outputs)


def test_composer_copies_no_pixels(
    raw_sample: Path, mds_sample: Path, tmp_path: Path, processor: Any, tiny_config: Callable[..., Any]
) -> None:
    config = run_config(raw_sample, mds_sample, tmp_path, 2)
    data = build_data(config.train_loader, processor, 8, config.seed, True)
    model = Watched(load_model(tiny_config()), processor)
    trainer = Trainer(
        model=model,
        train_dataloader=data.spec,
        train_subset_num_batches=1,
        max_duration="1ba",
        device="cpu",
        device_train_microbatch_size=2,
        optimizers=torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.0),
        accumulate_train_batch_on_tokens=True,
        progress_bar=False,
    )
    trainer.fit()
    trainer.close()
    data.close()
    assert len(model.forwarded) == 4
    assert model.kept == model.forwarded


class Pinned(TorchFunctionMode):
    """Notes which tensors are asked for in pinned memory, and makes them elsewhere: without a GPU there is none."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.empty and kwargs.pop("pin_memory", False):
            self.shapes.append(tuple(args[0]))
        return func(*args, **kwargs)


@pytest.mark.parametrize("gpu", [True, False])
def test_what_goes_to_a_gpu_is_made_in_pinned_memory(
    raw_sample: Path, mds_sample: Path, tmp_path: Path, batch: Batch, monkeypatch: pytest.MonkeyPatch, gpu: bool
) -> None:
    monkeypatch.setattr(builders, "on_gpu", lambda config: gpu)
    eval_set = f"eval_loader={{dataset: {{remote: {mds_sample}, local: {tmp_path / 'eval'}}}, num_workers: 0}}"
    config = run_config(raw_sample, mds_sample, tmp_path, 4, eval_set)
    processor = load_processor(config.model)
    loaders = (builders.build_training(config, processor), builders.build_evaluation(config, processor)[""])
    for data in loaders:
        with Pinned() as pinned:
            parts = data.spec.split_batch(batch, 4)
        tensors = [tuple(value.shape) for part in parts for value in part.values() if isinstance(value, torch.Tensor)]
        assert pinned.shapes == (tensors if gpu else [])
        data.close()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device: pinned memory")
def test_microbatches_for_a_gpu_are_pinned(batch: Batch) -> None:
    for part in split_by_length(batch, 4, pin_memory=True):
        assert all(value.is_pinned() for value in part.values() if isinstance(value, torch.Tensor))
        on_gpu = get_device("gpu").batch_to_device(part)
        for name, value in part.items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(on_gpu[name].cpu(), value)


def test_training_does_not_depend_on_the_microbatch_size_and_logs_padding(
    raw_sample: Path, mds_sample: Path, tmp_path: Path
) -> None:
    def run(size: int) -> tuple[list[float], list[float]]:
        config = run_config(raw_sample, mds_sample, tmp_path / str(size), size)
        assert train(config) == 0
        return losses(config.save_folder), list(logged(config.save_folder, "data/padding").values())

    whole_losses, padding = run(8)
    small_losses, small_padding = run(2)
    assert len(whole_losses) == len(padding) == 4
    assert small_losses == pytest.approx(whole_losses, rel=1e-4)
    assert all(0 <= small < whole < 0.5 for small, whole in zip(small_padding, padding, strict=True))


def run_config(raw: Path, mds: Path, folder: Path, size: int, *overrides: str) -> Config:
    return smoke_config(
        raw,
        mds,
        f"save_folder={folder / 'run'}",
        f"train_loader.dataset.local={folder / 'cache'}",
        "train_loader.num_workers=0",
        "global_train_batch_size=8",
        f"device_train_microbatch_size={size}",
        "save_interval=1ep",
        *overrides,
    )
