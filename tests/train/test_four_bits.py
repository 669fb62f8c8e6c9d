"""Adapters on a base in 4 bits: at first the base to the bit, alone in checkpoints, resumed, merged, exported."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import BitsAndBytesConfig, Gemma3ForConditionalGeneration

from tests.conftest import SMOKE_YAML
from tests.helpers.extras import FOUR_BITS, marks_of_extra
from tests.train.test_lora import LORA, PLAIN, run, seen, words
from tests.train.test_train import losses, run_config, saved_state
from theworld.commands.export import main as export_command
from theworld.config.load import load_config
from theworld.config.schema import Config
from theworld.errors import UserError
from theworld.hub.export import Snapshot, export
from theworld.inference.load_trained import load_trained
from theworld.model import TheWorldForConditionalGeneration, load_model
from theworld.model.adapter_files import lora_of
from theworld.model.adapters import adapter_weights, is_adapter, merge_adapters
from theworld.model.build import load_shapes
from theworld.model.check_four_bits import FORM
from theworld.model.four_bits import bytes_beside, four_bit_layers, packed_weights, quantise
from theworld.model.tiny import tiny_folder
from theworld.train.run import train

pytestmark = marks_of_extra(*FOUR_BITS)
BITS = "model.load_in_4bit=true"
LINEAR = 2 * 7 + 2 * 6
"""Linear layers of the tiny model: two decoder layers and two of the vision tower."""


@pytest.fixture(scope="module")
def trained(raw_sample: Path, mds_sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """Three batches with adapters on language model and vision tower in 4 bits."""
    return run(raw_sample, mds_sample, tmp_path_factory.mktemp("bits"), 3, BITS)


def quantised(*more: str, **settings: Any) -> Any:
    return load_model(load_config([SMOKE_YAML, *LORA, BITS, *more]).model, **settings)


def test_new_adapters_change_nothing_on_the_quantised_base() -> None:
    plain = load_model(load_config([SMOKE_YAML]).model, seed=3)
    before = words(plain), seen(plain)
    model = quantised(seed=3)
    assert len(list(four_bit_layers(model))) == LINEAR
    assert not any("absmax" in name or "quant_" in name.replace("quant_conv", "") for name in model.state_dict())
    quantise(plain, lora_of(model.config.lora))
    for ours, base, whole in zip((words(model), seen(model)), (words(plain), seen(plain)), before, strict=True):
        assert torch.equal(ours, base)
        assert 1e-2 < (base - whole).abs().max() < 2, "quantised, and still the same model"
    layer = dict(four_bit_layers(plain))["model.language_model.layers.1.mlp.up_proj"]
    own = load_model(load_config([SMOKE_YAML]).model).model.language_model.layers[1].mlp.up_proj.weight
    assert (layer.whole_weight() - own).abs().max() < own.abs().max() / 4, "the widest gap of NF4 is a third"


def test_gradients_reach_adapters_and_projector_only() -> None:
    model = quantised().train()
    packed = {one: one.clone() for one in packed_weights(model)}
    assert len(packed) == LINEAR
    with torch.no_grad():
        for weight in adapter_weights(model).values():
            weight += 0.01
    ids = torch.arange(5, 25)[None]
    model(input_ids=ids, labels=ids).loss.backward()
    has = {name for name, one in model.named_parameters() if one.grad is not None and one.grad.any()}
    assert {name for name in has if is_adapter(name)} == {
        name for name in adapter_weights(model) if "language_model" in name
    }, "this batch has no picture"
    assert all(is_adapter(name) or "world_projector" in name for name in has)
    optimizer = torch.optim.Adam([one for one in model.parameters() if one.requires_grad], lr=0.1)
    optimizer.step()
    assert all(torch.equal(one, then) for one, then in packed.items())


@pytest.mark.parametrize("autocast", [False, True])
def test_the_layers_compute_in_the_runs_precision(autocast: bool) -> None:
    """As a plain layer does with the weight that is whole again, and its gradient."""
    model = quantised(frozen_dtype=torch.bfloat16)
    name, layer = next(four_bit_layers(model))
    assert layer.bias.dtype == torch.bfloat16
    x = torch.randn(5, layer.in_features, dtype=torch.float32 if autocast else torch.bfloat16, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y = layer(x)
        expected = torch.nn.functional.linear(x, layer.whole_weight().bfloat16(), layer.bias)
    assert y.dtype == expected.dtype == torch.bfloat16, name
    torch.testing.assert_close(y, expected)
    for out in (y, expected):
        out.float().pow(2).sum().backward()
    assert x.grad is not None
    (gradient,) = torch.autograd.grad(layer(x.detach().bfloat16().requires_grad_()).sum(), [x], allow_unused=True)
    assert gradient is None
    assert torch.isfinite(x.grad).all()


def test_a_merged_model_is_the_one_in_4_bits() -> None:
    model = quantised()
    generator = torch.Generator().manual_seed(1)
    before = words(model)
    with torch.no_grad():
        for weight in adapter_weights(model).values():
            weight.copy_(torch.randn(weight.shape, generator=generator) / 10)
    adapted = words(model), seen(model)
    assert (adapted[0] - before).abs().max() > 1e-2
    merge_adapters(model)
    assert not adapter_weights(model)
    assert not list(four_bit_layers(model))
    assert not any(type(one).__module__.startswith("bitsandbytes") for one in model.modules())
    for one, other in zip((words(model), seen(model)), adapted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_checkpoints_hold_adapters_and_projector_and_resume_to_the_bit(
    trained: Config, raw_sample: Path, mds_sample: Path, tmp_path: Path
) -> None:
    state = saved_state(trained)
    assert all(is_adapter(name) or ".world_projector." in name for name in state["model"])
    assert json.loads(state["theworld_weights"])["bases"]["gemma"]["form"] == FORM
    moved = {name for name, one in state["model"].items() if one.any()}
    assert moved == state["model"].keys(), "B of each adapter, too"
    run(raw_sample, mds_sample, tmp_path, 2, BITS)
    with pytest.raises(UserError, match=r"adapters are for a base in 4 bits; set model\.load_in_4bit=true"):
        run(raw_sample, mds_sample, tmp_path, 3)
    branch = (f"load_path={tmp_path}/run/ep0-ba2-rank0.pt", "load_weights_only=true")
    with pytest.raises(UserError, match="are for a base in 4 bits"):
        run(raw_sample, mds_sample, tmp_path / "branch", 3, *branch, f"save_folder={tmp_path}/other")
    resumed = run(raw_sample, mds_sample, tmp_path, 3, BITS)
    assert losses(resumed.save_folder) == losses(trained.save_folder)
    again = saved_state(resumed)["model"]
    assert all(torch.equal(one, again[name]) for name, one in state["model"].items())


def test_adapters_of_a_whole_base_are_not_put_on_4_bits(raw_sample: Path, mds_sample: Path, tmp_path: Path) -> None:
    run(raw_sample, mds_sample, tmp_path, 1)
    with pytest.raises(UserError, match=r"are for a base not in 4 bits; set model\.load_in_4bit=false"):
        run(raw_sample, mds_sample, tmp_path, 2, BITS)


def test_a_projector_from_before_goes_on_beside_4_bits(raw_sample: Path, mds_sample: Path, tmp_path: Path) -> None:
    """An alignment stage on the whole base comes before."""
    first = run(raw_sample, mds_sample, tmp_path, 1, "model.lora=null")
    begin = (f"load_path={first.save_folder}/ep0-ba1-rank0.pt", "load_weights_only=true", "optimizer.lr=0.0")
    second = run(raw_sample, mds_sample, tmp_path / "next", 1, BITS, *begin)
    then, now = saved_state(first)["model"], saved_state(second)["model"]
    assert all(torch.equal(one, now[name]) for name, one in then.items())


def test_what_is_exported_is_loaded_on_4_bits_and_a_merge_without_bitsandbytes(trained: Config, tmp_path: Path) -> None:
    folder = str(trained.save_folder)
    ours = load_trained(folder).model
    assert len(list(four_bit_layers(ours))) == LINEAR
    for command in ([folder, str(tmp_path / "adapters")], [folder, str(tmp_path / "whole"), "--merge"]):
        assert not export_command(command)
    assert json.loads((tmp_path / "adapters" / "config.json").read_text())["base"]["gemma"]["form"] == FORM
    again = TheWorldForConditionalGeneration.from_pretrained(tmp_path / "adapters")
    assert torch.equal(words(again), words(ours))
    assert torch.equal(seen(again), seen(ours))
    half = TheWorldForConditionalGeneration.from_pretrained(tmp_path / "adapters", dtype=torch.bfloat16)
    assert {one.dtype for one in half.parameters() if one not in packed_weights(half)} >= {torch.bfloat16}
    assert torch.equal(*(next(four_bit_layers(one))[1].weight for one in (half, ours))), "4 bits of the same weights"

    base = load_model(load_config([SMOKE_YAML]).model, seed=8)
    quantise(base, lora_of({"parts": ["language", "vision"]}))
    theirs = PeftModel.from_pretrained(base, tmp_path / "adapters")
    assert torch.equal(words(theirs), words(ours))
    assert torch.equal(seen(theirs), seen(ours))

    whole = load_trained(str(tmp_path / "whole")).model
    described = json.loads((tmp_path / "whole" / "config.json").read_text())
    assert described["lora"] is None
    assert "form" not in described["base"]["gemma"]
    assert not any(type(one).__module__.startswith(("bitsandbytes", "peft")) for one in whole.modules())
    torch.testing.assert_close(words(whole), words(ours), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(seen(whole), seen(ours), rtol=1e-4, atol=1e-4)


def test_the_same_greedy_answer_from_run_repo_and_folder(trained: Config, tmp_path: Path) -> None:
    folder = Path(str(trained.save_folder))
    snapshot = Snapshot.take(folder, folder / "ep0-ba3-rank0.pt", tmp_path / "snapshot")
    export(snapshot, tmp_path / "repo", "own/adapters")
    card = (tmp_path / "repo" / "README.md").read_text()
    assert f"gemma ({FORM})" in card
    assert f"the layers of the parts with adapters in 4 bits ({FORM}):" in card
    answers = []
    for where in (folder, tmp_path / "repo"):
        model = load_trained(str(where)).model
        ids = torch.arange(5, 17)[None]
        answers.append(model.generate(input_ids=ids, max_new_tokens=12, do_sample=False))
    assert answers[0].shape[1] > 12
    assert torch.equal(*answers)


def test_a_repo_cannot_ask_for_any_form(trained: Config, tmp_path: Path) -> None:
    assert not export_command([str(trained.save_folder), str(tmp_path / "out")])
    path = tmp_path / "out" / "config.json"
    good = json.loads(path.read_text())
    for form in ("fp4", "__import__('os')", 4, {"quant_type": "nf4"}):
        path.write_text(
            json.dumps({**good, "base": {**good["base"], "gemma": {**good["base"]["gemma"], "form": form}}})
        )
        with pytest.raises(UserError, match="form of its base"):
            load_trained(str(tmp_path / "out"))
    path.write_text(json.dumps({**good, "lora": None}))
    with pytest.raises(UserError, match="a base in 4 bits without adapters"):
        load_trained(str(tmp_path / "out"))
    path.write_text(json.dumps({**good, "quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}}))
    with pytest.raises(UserError, match="quantization_config in its"):
        load_trained(str(tmp_path / "out"))


def test_stock_peft_on_a_gemma_that_transformers_has_put_in_4_bits(
    raw_sample: Path, mds_sample: Path, tmp_path: Path
) -> None:
    """As docs/stages.md shows it; what both leave whole is the same, and what both quantise."""
    from bitsandbytes.nn import Linear4bit  # pyright: ignore[reportMissingImports]

    config = run_config(raw_sample, mds_sample, tmp_path, *PLAIN, BITS, "max_duration=2ba", "scheduler.t_warmup=0ba")
    assert train(config) == 0
    assert not export_command([str(config.save_folder), str(tmp_path / "out")])
    four_bits = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
        llm_int8_skip_modules=["vision_tower", "multi_modal_projector", "lm_head"],
    )
    gemma = Gemma3ForConditionalGeneration.from_pretrained(
        tiny_folder() / "gemma", dtype=torch.float32, quantization_config=four_bits, device_map="cpu"
    )
    for layer in gemma.modules():
        if isinstance(
            layer, Linear4bit
        ):  # where the processor has bfloat16 it would compute in that, whatever is asked
            setattr(layer, "support_avx512bf16_for_cpu", False)  # noqa: B010 - not an attribute that types know
    plain = words(gemma)
    theirs = PeftModel.from_pretrained(gemma, tmp_path / "out")
    ours = load_trained(str(config.save_folder)).model
    assert len(list(four_bit_layers(ours))) == 2 * 7
    torch.testing.assert_close(words(theirs), words(ours), rtol=1e-5, atol=1e-5)
    assert not torch.equal(words(ours), plain)


def test_4_bits_are_made_of_the_files_own_weights(tmp_path: Path) -> None:
    """An answer in bfloat16 has the base that a run in float32 had, and the other way round."""
    shutil.copytree(tiny_folder() / "gemma", tmp_path / "gemma")
    for file in (tmp_path / "gemma").glob("*.safetensors"):
        save_file({name: one.bfloat16() for name, one in load_file(file).items()}, file, metadata={"format": "pt"})
    for gemma in ("builtin:tiny", str(tmp_path / "gemma")):
        settings = ({}, {"dtype": torch.bfloat16}, {"frozen_dtype": torch.bfloat16}, {"packed_in": torch.float32})
        models = [quantised(f"model.gemma={gemma}", **one) for one in settings]
        first = [layer.whole_weight() for _, layer in four_bit_layers(models[0])]
        for model in models[1:]:
            own = [layer.whole_weight() for _, layer in four_bit_layers(model)]
            assert all(torch.equal(one, other) for one, other in zip(own, first, strict=True))
    assert {one.dtype for one in models[2].model.language_model.parameters() if not one.requires_grad} == {
        torch.bfloat16,
        torch.uint8,
    }


def test_a_layer_is_packed_before_the_next_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The device never has more whole layers than one: each is in its place when the next one's turn comes."""
    import bitsandbytes.functional as functional  # pyright: ignore[reportMissingImports]

    import theworld.model.four_bit_linear as layers

    model = load_model(load_config([SMOKE_YAML]).model)
    whole = []

    def watched(weight: torch.Tensor, **settings: Any) -> Any:
        whole.append(sum(type(one) is torch.nn.Linear for one in model.modules()))
        return functional.quantize_4bit(weight, **settings)

    monkeypatch.setattr(layers, "quantize_4bit", watched)
    quantise(model, lora_of({"parts": ["language", "vision"]}))
    assert len(whole) == LINEAR
    assert whole == list(range(whole[0], whole[0] - LINEAR, -1))


def test_shapes_without_weights_are_as_large_as_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """And leave nothing without data behind: on a GPU the estimate comes before the model."""
    from bitsandbytes import functional  # pyright: ignore[reportMissingImports]

    monkeypatch.delitem(functional.name2qmap, "dynamic", raising=False)
    config = load_config([SMOKE_YAML, *LORA, BITS]).model
    shapes, model = load_shapes(config), load_model(config)
    assert {name: (one.shape, one.dtype) for name, one in shapes.named_parameters()} == {
        name: (one.shape, one.dtype) for name, one in model.named_parameters()
    }
    assert bytes_beside(shapes) == bytes_beside(model) > 0
    assert sum(one.nbytes for one in packed_weights(shapes)) * 2 == sum(
        one.in_features * one.out_features for _, one in four_bit_layers(model)
    )
