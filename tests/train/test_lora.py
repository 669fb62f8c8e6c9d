"""Adapters: a base to the bit at first, alone in checkpoints, resumed to the bit, merged, and read by peft itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import Gemma3ForConditionalGeneration

from tests.conftest import SMOKE_YAML
from tests.train.test_train import losses, run_config, saved_state
from theworld.commands.export import main as export_command
from theworld.compat import image_features
from theworld.config.load import load_config
from theworld.config.schema import Config
from theworld.errors import UserError
from theworld.hub.export import Snapshot, export
from theworld.hub.resume import composer_weights
from theworld.inference.load_trained import load_trained
from theworld.model import TheWorldForConditionalGeneration, load_model
from theworld.model.adapter_files import lora_of
from theworld.model.adapters import A, adapter_weights, is_adapter, merge_adapters
from theworld.model.check_model import check_model_config
from theworld.model.flops import trained_parts
from theworld.model.tiny import tiny_folder
from theworld.train.run import train

LORA = ("model.freeze.language=true", "model.lora={rank: 4, alpha: 16, dropout: 0.1, parts: [language, vision]}")
PLAIN = ("model.enable_world=false", "model.freeze.language=true", "model.lora={rank: 2, targets: [q_proj, v_proj]}")


def run(raw: Path, mds: Path, folder: Path, batches: int, *overrides: str) -> Config:
    folder.mkdir(exist_ok=True)
    settings = (f"max_duration={batches}ba", "scheduler.t_warmup=0ba", "scheduler.t_max=9ba", "optimizer.lr=1.0e-2")
    config = run_config(raw, mds, folder, *LORA, *settings, *overrides)
    assert train(config) == 0
    return config


@pytest.fixture(scope="module")
def trained(raw_sample: Path, mds_sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """Three batches with adapters on language model and vision tower."""
    return run(raw_sample, mds_sample, tmp_path_factory.mktemp("lora"), 3)


def words(model: Any, tokens: int = 12) -> torch.Tensor:
    """Logits of some text, which need no picture."""
    with torch.no_grad():
        return model(input_ids=torch.arange(5, 5 + tokens)[None]).logits


def seen(model: Any) -> torch.Tensor:
    """The features of a picture and of its world, in one row."""
    inner = getattr(model, "base_model", None)
    body = inner.model.model if isinstance(model, PeftModel) and inner is not None else model.model
    generator = torch.Generator().manual_seed(0)
    side = body.config.vision_config.image_size
    with torch.no_grad():
        picture = image_features(body.get_image_features(torch.randn(1, 3, side, side, generator=generator))).flatten()
        if body.world_projector is None:
            return picture
        latents = torch.randn(1, 16, body.config.latent_side, body.config.latent_side, generator=generator)
        return torch.cat([picture, body.get_world_features(None, latents).flatten()])


def test_new_adapters_change_nothing_and_are_the_same_for_each_rank() -> None:
    config = load_config([SMOKE_YAML, *LORA])
    adapted = load_model(config.model, seed=3)
    torch.manual_seed(5)
    again = adapter_weights(load_model(config.model, seed=3))
    for name, weight in adapter_weights(adapted).items():
        assert torch.equal(weight, again[name])
        assert bool(weight.any()) == (A in name)
    plain = load_model(load_config([SMOKE_YAML]).model, seed=3)
    assert torch.equal(words(adapted), words(plain))
    assert torch.equal(seen(adapted), seen(plain))


def test_what_trains_and_in_which_precision(tmp_path: Path) -> None:
    """On weights that lie in bfloat16, as those of the released models do."""
    shutil.copytree(tiny_folder() / "gemma", tmp_path / "gemma")
    for file in (tmp_path / "gemma").glob("*.safetensors"):
        save_file({name: one.bfloat16() for name, one in load_file(file).items()}, file, metadata={"format": "pt"})
    gemma = f"model.gemma={tmp_path / 'gemma'}"
    config = load_config([SMOKE_YAML, *LORA, gemma, "model.lora.targets=[q_proj, down_proj, fc1]"])
    model = load_model(config.model, frozen_dtype=torch.bfloat16)
    trains = {name: one.dtype for name, one in model.named_parameters() if one.requires_grad}
    assert set(trains.values()) == {torch.float32}
    others = {name.partition("world_projector")[0] for name in trains if not is_adapter(name)}
    assert others == {"model."}
    layers = {name.partition(".lora_")[0].rpartition(".")[2] for name in trains if is_adapter(name)}
    assert layers == {"q_proj", "down_proj", "fc1"}
    assert len(adapter_weights(model)) == 2 * 2 * (2 + 2)
    assert model.get_input_embeddings().weight.dtype == torch.bfloat16
    assert trained_parts(model) == {"world_projector"}
    units = [module for module in model.modules() if model.fsdp_wrap_fn(module)]
    covered: set[Any] = set()
    for unit in reversed(units):
        own = {one for one in unit.parameters() if one not in covered}
        assert len({one.dtype for one in own}) == 1
        covered |= own


def test_a_merged_model_is_the_adapted_one() -> None:
    model = load_model(load_config([SMOKE_YAML, *LORA]).model)
    before = words(model), seen(model)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in adapter_weights(model).values():
            weight.copy_(torch.randn(weight.shape, generator=generator) / 10)
    adapted = words(model), seen(model)
    assert all((one - other).abs().max() > 1e-2 for one, other in zip(adapted, before, strict=True))
    merge_adapters(model)
    assert not adapter_weights(model)
    for one, other in zip((words(model), seen(model)), adapted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_checkpoints_hold_adapters_and_projector_and_resume_to_the_bit(
    trained: Config, raw_sample: Path, mds_sample: Path, tmp_path: Path
) -> None:
    state = saved_state(trained)
    assert state["model"]
    assert all(is_adapter(name) or ".world_projector." in name for name in state["model"])
    assert json.loads(state["theworld_weights"])["bases"]["gemma"]["fingerprint"]
    moved = {name for name, one in state["model"].items() if one.any()}
    assert moved == state["model"].keys(), "B of each adapter, too"
    run(raw_sample, mds_sample, tmp_path, 2)
    for change, says in (
        ("model.lora.alpha=8", r"its adapters have alpha 16\.0, but model\.lora has alpha 8\.0"),
        ("model.lora.rank=2", "its adapters have rank 4"),
        ("model.lora.targets=[q_proj,fc1]", "its adapters have targets None"),
        ("model.lora=null", r"holds adapters, and model\.lora is null"),
    ):
        with pytest.raises(UserError, match=says):
            run(raw_sample, mds_sample, tmp_path, 3, change)
    resumed = run(raw_sample, mds_sample, tmp_path, 3)
    assert losses(resumed.save_folder) == losses(trained.save_folder)
    again = saved_state(resumed)["model"]
    assert all(torch.equal(one, again[name]) for name, one in state["model"].items())


def test_peft_reads_the_export_and_a_merge_is_the_same_model(trained: Config, tmp_path: Path) -> None:
    folder = str(trained.save_folder)
    ours = load_trained(folder).model
    for command in ([folder, str(tmp_path / "adapters")], [folder, str(tmp_path / "whole"), "--merge"]):
        assert not export_command(command)
    base = load_config([SMOKE_YAML]).model
    theirs = PeftModel.from_pretrained(load_model(base, seed=8), tmp_path / "adapters")
    assert torch.equal(words(theirs), words(ours))
    assert torch.equal(seen(theirs), seen(ours))
    own = load_model(base, seed=8)
    assert not torch.equal(words(ours), words(own))
    assert theirs.peft_config["default"].modules_to_save == ["world_projector"]  # pyright: ignore
    with theirs.disable_adapter():  # the base is whole behind them, its own projector too
        assert torch.equal(words(theirs), words(own))
        assert torch.equal(seen(theirs), seen(own))
    for again in (
        load_trained(str(tmp_path / "adapters")).model,
        TheWorldForConditionalGeneration.from_pretrained(tmp_path / "adapters"),
    ):
        assert torch.equal(words(again), words(ours))
        assert torch.equal(seen(again), seen(ours))
    whole = load_trained(str(tmp_path / "whole")).model
    assert not adapter_weights(whole)
    torch.testing.assert_close(words(whole), words(ours), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(seen(whole), seen(ours), rtol=1e-4, atol=1e-4)


def test_what_goes_to_the_hub_is_a_repo_for_peft_and_comes_back(trained: Config, tmp_path: Path) -> None:
    folder = Path(str(trained.save_folder))
    snapshot = Snapshot.take(folder, folder / "ep0-ba3-rank0.pt", tmp_path / "snapshot")
    export(snapshot, tmp_path / "out", "own/adapters")
    assert not list((tmp_path / "out").glob("model*.safetensors"))
    theirs = PeftModel.from_pretrained(load_model(load_config([SMOKE_YAML]).model, seed=8), tmp_path / "out")
    assert torch.equal(words(theirs), words(load_trained(str(folder)).model))
    description = json.loads((tmp_path / "out" / "resume" / "state.json").read_text())
    assert "adapter_model.safetensors" in description["files"]
    weights, saved = composer_weights(tmp_path / "out", description), saved_state(trained)["model"]
    assert weights.keys() == saved.keys()
    assert all(torch.equal(weights[name], one) for name, one in saved.items())
    assert 'PeftModel.from_pretrained(base, "own/adapters")' in (tmp_path / "out" / "README.md").read_text()


def test_adapters_of_a_run_without_a_world_go_on_a_plain_gemma(
    raw_sample: Path, mds_sample: Path, tmp_path: Path
) -> None:
    config = run_config(raw_sample, mds_sample, tmp_path, *PLAIN, "max_duration=2ba", "scheduler.t_warmup=0ba")
    assert train(config) == 0
    assert not export_command([str(config.save_folder), str(tmp_path / "out")])
    gemma = Gemma3ForConditionalGeneration.from_pretrained(tiny_folder() / "gemma", dtype=torch.float32)
    plain = words(gemma)
    theirs = PeftModel.from_pretrained(gemma, tmp_path / "out")
    ours = load_trained(str(config.save_folder)).model
    assert torch.equal(words(theirs), words(ours))
    assert not torch.equal(words(ours), plain)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["model.lora={rank: 0}"], r"model\.lora\.rank: 0: expected a number from 1 to 4,096"),
        (["model.lora={alpha: -1}"], r"model\.lora\.alpha: -1"),
        (["model.lora={dropout: 1}"], r"model\.lora\.dropout: 1"),
        (["model.lora={parts: []}"], r"model\.lora\.parts is empty"),
        (["model.lora={parts: [vae]}"], "'vae' cannot have adapters; known are language, vision"),
        (["model.lora={}", "model.freeze.language=false"], r"model\.freeze\.language is false"),
        (["model.lora={parts: [vision]}", "model.freeze.vision=false"], r"model\.freeze\.vision is false"),
        (["model.lora={parts: [vision]}", "model.freeze.language=false"], "cannot hold a whole language model"),
        (["model.lora={}", "model.freeze.vae=false"], "cannot hold the VAE"),
        (["model.lora={targets: [q_prj]}"], r"'q_prj': no such linear layer in language; did you mean q_proj\?"),
        (["model.lora={targets: [fc1]}"], "'fc1': no such linear layer in language"),
        (["model.lora={targets: [fc1], parts: [language, vision]}"], "none of them is in language"),
    ],
)
def test_adapters_that_cannot_be_are_one_line(overrides: list[str], says: str) -> None:
    config = load_config([SMOKE_YAML, "model.freeze.language=true", *overrides])
    with pytest.raises(UserError, match=says):
        check_model_config(config.model)


@pytest.mark.parametrize(
    "change",
    [
        {"rank": 10**9},
        {"rank": "4"},
        {"rank": True},
        {"alpha": float("nan")},
        {"alpha": [1]},
        {"dropout": 5},
        {"parts": [".*"]},
        {"parts": None},
        {"code": "x"},
    ],
)
def test_a_repo_cannot_ask_for_any_adapter(change: dict[str, Any]) -> None:
    """What stands in somebody's config.json is held against the same limits before anything is made of it."""
    good = {"rank": 4, "alpha": 8.0, "dropout": 0.0, "targets": None, "parts": ["language"]}
    assert lora_of(good).rank == 4
    with pytest.raises(UserError, match=r"model\.lora\.|lora in its config\.json is of another form"):
        lora_of(good | change)
