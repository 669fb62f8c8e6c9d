"""The estimate of memory: figures that were measured at real size, layers that really run, and what a user is told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.models.gemma3.modeling_gemma3 import Gemma3DecoderLayer

from tests.conftest import SMOKE_YAML
from tests.train.real_shapes import write_real_shapes
from tests.train.test_train import run_config
from theworld.compat import layer_inputs
from theworld.config.load import load_config
from theworld.config.schema import Config, ConvertConfig
from theworld.data.shards.convert import convert
from theworld.errors import UserError
from theworld.model.activations import Precision, language_layer, vision_layer
from theworld.model.build import load_shapes
from theworld.model.tiny import tiny_folder
from theworld.preflight.all_checks import check_run
from theworld.train import run
from theworld.train.fit_memory import fit_memory, memory_errors_as_one_line, remedy
from theworld.train.memory import GIB, MemoryOfRun, frozen_dtype

SPATIAL_YAML = str(Path(SMOKE_YAML).with_name("spatial.yaml"))
SHARDED = "parallelism_config={fsdp: {}}"
STAGES = {"projector": [], "vision": ["model.freeze.vision=false"]}
STAGES["language"] = [*STAGES["vision"], "model.freeze.language=false"]
GPU_80 = 80 * 10**9
"""An "80 GB" card in bytes, a little less than what such cards report."""

KNOWN_RUNS: dict[str, MemoryOfRun] = {}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return write_real_shapes(tmp_path_factory.mktemp("real"))


def run_of(bases: list[str], stage: str, *overrides: str) -> tuple[Config, MemoryOfRun]:
    config = load_config([SPATIAL_YAML, *bases, *STAGES[stage], "device_train_microbatch_size=1", *overrides])
    if stage not in KNOWN_RUNS:
        KNOWN_RUNS[stage] = MemoryOfRun(config)
    return config, KNOWN_RUNS[stage]


@pytest.mark.parametrize(
    ("stage", "ddp", "sharded"), [("projector", 8.2, 1.0), ("vision", 13.7, 1.7), ("language", 64.3, 8.0)]
)
def test_states_at_real_size(bases: list[str], stage: str, ddp: float, sharded: float) -> None:
    config, memory = run_of(bases, stage)
    assert memory.estimate(config, 8, 1000).states / GIB == pytest.approx(ddp, abs=0.05)
    config, _ = run_of(bases, stage, SHARDED)
    assert memory.estimate(config, 8, 1000).states / GIB == pytest.approx(sharded, abs=0.05)


def test_states_follow_the_optimizer_and_precision(bases: list[str]) -> None:
    config, memory = run_of(bases, "language")
    adam, sgd = (
        memory.estimate(config, 1, 1000),
        memory.estimate(run_of(bases, "language", "optimizer={name: sgd}")[0], 1, 1000),
    )
    assert adam.optimizer == 2 * adam.gradients == 2 * sgd.optimizer
    assert frozen_dtype(config) is torch.bfloat16
    assert frozen_dtype(load_config([SMOKE_YAML])) is torch.float32


@pytest.mark.parametrize(("sharded", "shards"), [([], 1), ([SHARDED], 8)])
def test_a_moving_average_is_one_more_copy_of_what_trains(bases: list[str], sharded: list[str], shards: int) -> None:
    plain, memory = run_of(bases, "vision", *sharded)
    averaged, _ = run_of(bases, "vision", *sharded, "algorithms.ema={half_life: 100ba}")
    trained = sum(weight.nbytes for weight in memory.model.parameters() if weight.requires_grad)
    without, found = memory.estimate(plain, 8, 1000), memory.estimate(averaged, 8, 1000)
    assert found.total - without.total == found.average == trained // shards
    assert "moving average" in str(found)
    assert "moving average" not in str(without)


def test_a_compiled_loss_has_the_logits_of_all_answers_at_once(bases: list[str]) -> None:
    """3 MB a token; without compilation those of 512 tokens, however long the samples are."""
    long, size = 2600, "device_train_microbatch_size=4"
    plain, memory = run_of(bases, "projector", size)
    compiled, _ = run_of(bases, "projector", size, "compile_config={}")
    answers = 4 * (long - memory.least_tokens)
    found = memory.estimate(compiled, 1, long).passing
    assert found == pytest.approx(3.1e6 * answers, rel=0.1)
    assert found > 2 * memory.estimate(plain, 1, long).passing
    # What a run is refused for has no text.
    least = memory.least_tokens
    assert memory.estimate(compiled, 1, least).total <= memory.estimate(plain, 1, least).total


def test_a_sample_of_several_pictures_has_as_many_as_its_tokens_have_room_for(bases: list[str]) -> None:
    config, one = run_of(bases, "vision")
    more = MemoryOfRun(config, several_pictures=True)
    long = 4 * one.least_tokens + 100
    tower = one.model.config.vision_config.num_hidden_layers
    how = one.precision(config, one.model.model.vision_tower)
    first, second = (vision_layer(one.model.config, pictures, how, False).kept for pictures in (1, 2))
    plain, found = (memory.estimate(config, 8, long) for memory in (one, more))
    assert found.activations - plain.activations == pytest.approx(3 * tower * (second - first), rel=0.01)
    assert found.passing > plain.passing, "the VAE sees all of them at once"
    assert f"1 x {long} tokens with 4 pictures, not recomputed" in str(found)
    assert more.estimate(config, 8, one.least_tokens) == one.estimate(config, 8, one.least_tokens)
    few, _ = run_of(bases, "vision", "convert.most_images=2")
    assert MemoryOfRun(few, several_pictures=True).pictures(long) == 2


def test_a_layer_keeps_what_was_measured_at_real_width(bases: list[str]) -> None:
    """kB a token at 1,024 tokens: a frozen layer, a trained one under FSDP, and with recomputation."""
    shapes = run_of(bases, "projector")[1].model.config
    half = torch.bfloat16
    for trains, again, kilobytes in [(False, False, 133), (True, False, 218), (False, True, 5.1), (True, True, 5.1)]:
        found = language_layer(shapes, 1, 1024, Precision(half, half, trains), again)
        assert found.kept / 1024 / 1000 == pytest.approx(kilobytes, rel=0.01)
    # Without FSDP autocast keeps a copy of the trained weights: 94 M in two bytes each.
    copies = language_layer(shapes, 1, 1024, Precision(torch.float32, half, True), True).kept
    assert copies == pytest.approx(94.4e6 * 2, rel=0.06)


@pytest.mark.parametrize("trains", [False, True])
def test_the_measure_on_nothing_is_that_of_a_layer_that_runs(tiny_shapes: Any, trains: bool) -> None:
    """What autograd packs in a real forward pass, its input left out, which the layer before has made."""
    config, text = tiny_shapes, tiny_shapes.text_config
    layer = Gemma3DecoderLayer(text, 0)
    layer.requires_grad_(trains)
    states = torch.randn(2, 96, text.hidden_size, requires_grad=True)
    rotation = torch.randn(2, 96, text.head_dim)
    mask = torch.ones(2, 1, 96, 96, dtype=torch.bool)
    packed: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        packed[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        layer(states, **layer_inputs((rotation, rotation)), attention_mask=mask)
    given = {tensor.untyped_storage().data_ptr() for tensor in [*layer.parameters(), rotation, mask]}
    real = sum(tensor.untyped_storage().nbytes() for place, tensor in packed.items() if place not in given)
    found = language_layer(config, 2, 96, Precision(torch.float32, None, trains), False).kept
    assert found == pytest.approx(real, rel=0.02)


def test_the_kernel_of_attention_counts() -> None:
    def kept(kernel: str) -> int:
        shapes = load_shapes(load_config([SMOKE_YAML, f"model.attn_implementation={kernel}"]).model).config
        return language_layer(shapes, 1, 256, Precision(torch.float32, None, False), False).kept

    assert kept("eager") > 1.5 * kept("sdpa"), "a probability for every pair of tokens"
    assert kept("flex_attention") == kept("sdpa")


def test_a_tower_that_does_not_train_keeps_nothing(tiny_shapes: Any) -> None:
    single = torch.float32
    assert vision_layer(tiny_shapes, 2, Precision(single, None, False), False).kept == 0
    trained = vision_layer(tiny_shapes, 2, Precision(single, None, True), False)
    again = vision_layer(tiny_shapes, 2, Precision(single, None, True), True)
    assert trained.kept > 4 * again.kept > 0


@pytest.fixture(scope="module")
def tiny_shapes() -> Any:
    return load_shapes(load_config([SMOKE_YAML]).model).config


@pytest.mark.parametrize(("stage", "gpu", "recompute"), [("projector", GPU_80, False), ("projector", 24 * GIB, True)])
def test_null_recomputes_only_where_it_must(bases: list[str], stage: str, gpu: int, recompute: bool) -> None:
    config, memory = run_of(bases, stage)
    assert config.model.activation_checkpointing is None
    fit_memory(config, memory, 8, gpu)
    assert config.model.activation_checkpointing is recompute


def test_a_run_that_cannot_fit_is_refused_with_arithmetic_and_keys_that_fit(bases: list[str]) -> None:
    config, memory = run_of(bases, "language", "device_train_microbatch_size=4")
    with pytest.raises(UserError) as refused:
        fit_memory(config, memory, 8, 40 * GIB)
    said = str(refused.value)
    assert "\n" not in said
    assert "weights 16.1 + gradients 16.0 + optimizer 32.1" in said
    assert "on a GPU of 40.0 GiB" in said
    keys = said.partition("it fits with ")[2].partition(" (")[0]
    assert keys == f"{SHARDED} device_train_microbatch_size=1"
    better, _ = run_of(bases, "language", SHARDED)
    fit_memory(better, memory, 8, 40 * GIB)
    assert better.model.activation_checkpointing is True


def test_more_gpus_or_shorter_samples_where_no_key_helps(bases: list[str]) -> None:
    config, memory = run_of(bases, "language")
    assert "it fits on 16 GPUs with" in remedy(config, memory, 8, 15 * GIB)
    assert "use a larger GPU" in remedy(config, memory, 1, 2 * GIB)


def test_a_base_in_4_bits_is_named_where_adapters_train_on_a_whole_one(bases: list[str]) -> None:
    config, memory = run_of(bases, "projector")
    assert "4bit" not in remedy(config, memory, 1, 2 * GIB)
    lora, _ = run_of(bases, "projector", "model.lora={}")
    assert "; model.load_in_4bit=true has the base" in remedy(lora, memory, 1, 2 * GIB)
    lora.model.load_in_4bit = True
    assert "4bit" not in remedy(lora, memory, 1, 2 * GIB)


def test_the_longest_samples_are_warned_of_and_not_refused(bases: list[str], caplog: pytest.LogCaptureFixture) -> None:
    config, memory = run_of(bases, "projector", "model.activation_checkpointing=false")
    fit_memory(config, memory, 1, 20 * GIB)
    (record,) = [record for record in caplog.records if record.levelname == "WARNING"]
    said = record.getMessage()
    tokens = int(said.partition("up to about ")[2].partition(" ")[0])
    assert memory.estimate(config, 1, tokens).total <= 20 * GIB < memory.estimate(config, 1, tokens + 128).total
    assert "model.activation_checkpointing=true" in said


def test_all_ways_of_saying_out_of_memory_are_one_line() -> None:
    from composer.trainer.trainer import _adjust_device_train_microbatch_size

    class State:
        device_train_microbatch_size = 1

    config = Config(device_train_microbatch_size="auto")
    says = r"^out of GPU memory: lower device_train_microbatch_size; or set model\."
    with pytest.raises(UserError, match=says), memory_errors_as_one_line(config):
        _adjust_device_train_microbatch_size(State())  # pyright: ignore[reportArgumentType]
    with pytest.raises(RuntimeError, match="shapes"), memory_errors_as_one_line(config):
        raise RuntimeError("shapes do not match")
    config.device_train_microbatch_size, config.model.activation_checkpointing = 1, True
    with pytest.raises(UserError, match=r"^out of GPU memory: shard the model"), memory_errors_as_one_line(config):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def test_a_run_that_cannot_fit_is_refused_before_a_weight_is_looked_for(
    raw_sample: Path, mds_sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The base has no weights at all: what looks for them says so."""
    gemma = tmp_path / "gemma"
    shutil.copytree(tiny_folder() / "gemma", gemma, ignore=shutil.ignore_patterns("*.safetensors"))
    config = run_config(raw_sample, mds_sample, tmp_path, f"model.gemma={gemma}")
    monkeypatch.setattr(run, "smallest_gpu", lambda config: GIB)
    with pytest.raises(UserError, match=r"^memory: about .* GiB are needed on a GPU of 1\.0 GiB"):
        run.train(config)
    monkeypatch.setattr(run, "smallest_gpu", lambda config: None)
    with pytest.raises(UserError, match=r"holds no \.safetensors file"):
        run.train(config)


def test_a_run_counts_the_pictures_that_its_data_set_may_have(
    raw_sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    entries = json.loads((raw_sample / "openspatial.json").read_text())[:8]
    files = sorted(path.name for path in (raw_sample / "images").iterdir())
    for number, pictures in ((0, files[:1]), (1, files[:2])):
        talk = [{"from": "human", "value": "Which?"}, {"from": "gpt", "value": "This."}]
        named = [{"id": f"{place}", "images": pictures, "conversations": talk} for place in range(len(entries))]
        (tmp_path / "entries.json").write_text(json.dumps(named))
        out = tmp_path / f"mds{number}"
        where: dict[str, Any] = {
            "json": str(tmp_path / "entries.json"),
            "images": str(raw_sample / "images"),
            "out": str(out),
        }
        assert convert(ConvertConfig(**where, workers=1)).written == len(named)
        config = run_config(raw_sample, out, tmp_path / str(number), "max_duration=1ba")
        config.train_loader.dataset.local = str(tmp_path / f"cache{number}")
        config.train_loader.dataset.max_seq_len = 4 * MemoryOfRun(config).least_tokens
        monkeypatch.setattr(run, "smallest_gpu", lambda config: 80 * GIB)
        caplog.clear()
        with caplog.at_level("INFO"):
            assert run.train(config) == 0
        (said,) = [record.getMessage() for record in caplog.records if record.getMessage().startswith("memory: about")]
        assert ("tokens with 4 pictures" in said) == bool(number)
        (verdict,) = [one for one in check_run(config, 1, 1) if one.name == "GPU memory"]
        assert ("tokens with 4 pictures" in verdict.text) == bool(number)


LAYERS = """
from composer.core import Callback


class Layers(Callback):
    def fit_start(self, state, logger):
        print("computed again:", state.model.model.is_gradient_checkpointing)
"""


@pytest.mark.parametrize("gpu", [True, False])
def test_what_null_decides_is_what_the_model_does(
    raw_sample: Path,
    mds_sample: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    gpu: bool,
) -> None:
    """On a GPU that is too small by a little, and without one."""
    (tmp_path / f"layers_{gpu}.py").write_text(LAYERS)
    settings = (f"code_paths=[{tmp_path / f'layers_{gpu}.py'}]", f"callbacks={{'layers_{gpu}:Layers': {{}}}}")
    config = run_config(raw_sample, mds_sample, tmp_path, *settings, "max_duration=1ba")
    longest = config.train_loader.dataset.max_seq_len
    needed = MemoryOfRun(config).estimate(config, 1, longest).total
    monkeypatch.setattr(run, "smallest_gpu", lambda config: needed - 1 if gpu else None)
    assert run.train(config) == 0
    assert f"computed again: {gpu}" in capsys.readouterr().out
