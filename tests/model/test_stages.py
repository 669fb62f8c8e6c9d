"""Checkpoints that hold what trains, and stages that start from them, through the trainer itself."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.conftest import smoke_config
from theworld.checkpoint.on_disk import newest_whole_checkpoint
from theworld.checkpoint.weights import RECORD, pin_bases, read_saved_weights
from theworld.compat import NEW_TRANSFORMERS, as_named_here
from theworld.config.schema import Config
from theworld.errors import UserError
from theworld.model import load_model
from theworld.model.tiny import tiny_folder
from theworld.train.run import train

PROJECTOR, VISION, LANGUAGE = ".world_projector.", ("vision_tower", "multi_modal_projector"), "language_model"
FROZEN = ("model.freeze.vision=true", "model.freeze.language=true", "model.freeze.vae=true")

Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def make_config(raw_sample: Path, mds_sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Config]:
    """A run of two batches, everything frozen but the projector unless told otherwise."""
    cache = tmp_path_factory.mktemp("cache")

    def make(folder: Path, *overrides: str) -> Config:
        return smoke_config(
            raw_sample,
            mds_sample,
            f"save_folder={folder}",
            f"train_loader.dataset.local={cache}",
            "global_train_batch_size=4",
            "train_loader.num_workers=0",
            "max_duration=2ba",
            "scheduler.t_warmup=0ba",
            *FROZEN,
            *overrides,
        )

    return make


def checkpoint_of(config: Config) -> Path:
    found = newest_whole_checkpoint(Path(str(config.save_folder)))
    assert found is not None
    return found.path


def weights_of(path: Path) -> Weights:
    return torch.load(path, weights_only=False)["state"]["model"]


def parts_of(weights: Weights) -> set[str]:
    names = ("world_projector", "world_encoder", *VISION, LANGUAGE, "lm_head")
    return {next(part for part in names if part in name) for name in weights}


def next_stage(path: Path, *overrides: str) -> tuple[str, ...]:
    return (f"load_path={path}", "load_weights_only=true", *overrides)


def changed(after: Weights, before: Weights, part: str | tuple[str, ...]) -> set[str]:
    parts = (part,) if isinstance(part, str) else part
    names = [name for name in after if any(part in name for part in parts)]
    assert names
    return {name for name in names if not torch.equal(after[name], before[name])}


@pytest.fixture(scope="module")
def base_weights(make_config: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory) -> Weights:
    """What the bases hold, under the names of a checkpoint."""
    model = load_model(make_config(tmp_path_factory.mktemp("base")).model)
    return {f"model.{name}": weight for name, weight in model.state_dict().items()}


@pytest.fixture(scope="module")
def first_stage(make_config: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory) -> Config:
    config = make_config(tmp_path_factory.mktemp("first"))
    assert train(config) == 0
    return config


def test_a_checkpoint_of_the_projector_holds_nothing_else(first_stage: Config) -> None:
    path = checkpoint_of(first_stage)
    weights = weights_of(path)
    assert parts_of(weights) == {"world_projector"}
    # Weights and two moments of Adam; the rest is the tokenizer and what Composer records beside it.
    projector = sum(weight.numel() * 4 for weight in weights.values())
    assert path.stat().st_size < 3 * projector + 200_000
    saved = read_saved_weights(str(path))
    assert saved.trained == weights.keys()
    assert {base["name"] for base in saved.bases.values()} == {"builtin:tiny"}


def test_each_stage_starts_from_the_last_ones_weights(
    make_config: Callable[..., Config], first_stage: Config, base_weights: Weights, tmp_path: Path
) -> None:
    first = weights_of(checkpoint_of(first_stage))
    assert changed(first, base_weights, PROJECTOR) == set(first), "the first stage has moved every weight"

    begin = next_stage(checkpoint_of(first_stage), "model.freeze.vision=false")
    unmoved = make_config(tmp_path / "unmoved", *begin, "optimizer.lr=0.0")
    assert train(unmoved) == 0
    loaded = weights_of(checkpoint_of(unmoved))
    assert parts_of(loaded) == {"world_projector", *VISION}
    assert not changed(loaded, first, PROJECTOR), "the projector is the first stage's"
    assert not changed(loaded, base_weights, VISION), "what the file lacks is the base's"

    second_stage = make_config(tmp_path / "second", *begin)
    assert train(second_stage) == 0
    second = weights_of(checkpoint_of(second_stage))
    assert changed(second, first, PROJECTOR)
    assert changed(second, base_weights, VISION)

    third_stage = make_config(
        tmp_path / "third", *next_stage(checkpoint_of(second_stage), "model.freeze.language=false")
    )
    assert train(third_stage) == 0
    third = weights_of(checkpoint_of(third_stage))
    assert parts_of(third) == {"world_projector", *VISION, LANGUAGE, "lm_head"}
    assert not changed(third, second, VISION), "vision is frozen again, as the second stage left it"
    assert changed(third, second, PROJECTOR)
    assert changed(third, base_weights, LANGUAGE)

    # Resumed, the third stage still has the second's vision, though it is neither trained nor the base's.
    third_stage.max_duration = "3ba"
    assert train(third_stage) == 0
    resumed = weights_of(checkpoint_of(third_stage))
    assert checkpoint_of(third_stage).name == "ep0-ba3-rank0.pt"
    assert not changed(resumed, second, VISION)
    assert changed(resumed, third, LANGUAGE)


def test_other_freezing_on_resume_says_how_to_begin_a_stage(
    make_config: Callable[..., Config], first_stage: Config
) -> None:
    config = make_config(Path(str(first_stage.save_folder)), "model.freeze.vision=false", "max_duration=4ba")
    with pytest.raises(UserError, match=r"model\.freeze or model\.lora has changed.*load_weights_only=true") as error:
        train(config)
    assert "\n" not in str(error.value)


def test_other_base_weights_are_refused(
    make_config: Callable[..., Config], first_stage: Config, tmp_path: Path
) -> None:
    gemma = Path(shutil.copytree(tiny_folder() / "gemma", tmp_path / "gemma"))
    same = make_config(tmp_path / "same", *next_stage(checkpoint_of(first_stage)), f"model.gemma={gemma}")
    assert train(same) == 0
    weights = load_file(gemma / "model.safetensors")
    name = next(name for name in weights if ".layers.1.mlp" in name and "language_model" in name)
    save_file({**weights, name: weights[name] + 1}, gemma / "model.safetensors", metadata={"format": "pt"})
    other = make_config(tmp_path / "other", *next_stage(checkpoint_of(first_stage)), f"model.gemma={gemma}")
    with pytest.raises(UserError, match=r"model\.gemma: .* holds other weights than builtin:tiny"):
        train(other)


def remove_weight(state: dict[str, Any]) -> None:
    state["model"].pop(next(iter(state["model"])))


def remove_projector(state: dict[str, Any]) -> None:
    remove_weight(state)
    record = json.loads(state[RECORD])
    state[RECORD] = json.dumps({**record, "trained": sorted(state["model"])})


def add_weight(state: dict[str, Any]) -> None:
    state["model"]["model.model.more.weight"] = torch.zeros(2)


def name_as_another_transformers(state: dict[str, Any]) -> None:
    inner = "" if NEW_TRANSFORMERS else "vision_model."
    here = f"model.model.vision_tower.{inner}embeddings.patch_embedding.bias"
    other = here.replace("vision_model.", "") if inner else here.replace("vision_tower.", "vision_tower.vision_model.")
    assert as_named_here(other) == here
    state["model"][other] = torch.zeros(2)


def reshape_weight(state: dict[str, Any]) -> None:
    name = next(iter(state["model"]))
    state["model"][name] = state["model"][name][..., :1]


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (remove_weight, "1 weights that it should hold are missing"),
        (remove_projector, "missing, for example|weights train now"),
        (add_weight, "1 weights that the model does not have"),
        (name_as_another_transformers, "as another major version of transformers does"),
        (reshape_weight, "the model's is"),
        (lambda state: state.pop(RECORD), "weights of the model are missing"),
    ],
)
def test_a_missing_or_unexpected_weight_is_one_line(
    make_config: Callable[..., Config],
    first_stage: Config,
    tmp_path: Path,
    damage: Callable[[dict[str, Any]], Any],
    says: str,
    resume: bool,
) -> None:
    content = torch.load(checkpoint_of(first_stage), weights_only=False)
    damage(content["state"])
    folder = tmp_path / "run"
    folder.mkdir()
    path = folder / "ep0-ba2-rank0.pt" if resume else tmp_path / "stage.pt"
    torch.save(content, path)
    config = make_config(folder, *(("max_duration=3ba",) if resume else next_stage(path)))
    with pytest.raises(UserError, match=says) as error:
        train(config)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("content", [b"", b"no checkpoint at all"])
def test_a_load_path_that_is_no_checkpoint_is_one_line(
    make_config: Callable[..., Config], tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "file.pt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"file\.pt: not a whole checkpoint") as error:
        train(make_config(tmp_path / "run", *next_stage(path)))
    assert "\n" not in str(error.value)


def test_a_checkpoint_behind_a_url_is_one_line() -> None:
    with pytest.raises(UserError, match=r"s3://bucket/run\.pt: copy the checkpoint to a folder"):
        read_saved_weights("s3://bucket/run.pt")


def test_the_recorded_revision_is_asked_for_where_the_yaml_names_none(first_stage: Config) -> None:
    saved = read_saved_weights(str(checkpoint_of(first_stage)))
    saved.bases["gemma"] |= {"name": "google/gemma-3-4b-it", "revision": "abc"}
    config = smoke_config(Path(), Path(), "model.gemma=google/gemma-3-4b-it").model
    pin_bases(config, saved)
    assert (config.gemma_revision, config.cosmos_revision) == ("abc", None)
    config.gemma_revision = "def"
    pin_bases(config, saved)
    assert config.gemma_revision == "def"


def test_frozen_parts_are_kept_in_bf16_and_what_trains_in_fp32(
    make_config: Callable[..., Config], tmp_path: Path
) -> None:
    config = make_config(tmp_path, "model.frozen_dtype=bf16", "model.freeze.vision=false")
    model = load_model(config.model, frozen_dtype=torch.bfloat16)
    kinds = {parameter.dtype for parameter in model.parameters() if parameter.requires_grad}
    assert kinds == {torch.float32}
    assert {p.dtype for p in model.parameters() if not p.requires_grad} == {torch.bfloat16}
    plain = load_model(config.model)
    assert all(
        torch.equal(p, q) for p, q in zip(model.parameters(), plain.parameters(), strict=True) if p.requires_grad
    )
    assert train(config) == 0
    saved = weights_of(checkpoint_of(config))
    assert {weight.dtype for weight in saved.values()} == {torch.float32}
