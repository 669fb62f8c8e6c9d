"""torch.compile: one graph through the decoder and the loss, the same losses, and no compiling at each batch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo
from torch import Tensor
from torch._dynamo.testing import CompileCounter
from torch._dynamo.utils import counters

from tests.conftest import SMOKE_YAML
from tests.helpers.extras import FOUR_BITS, needs_extra
from tests.train.test_train import losses, run_config, saved_state
from theworld.config.load import load_config
from theworld.config.schema import Config
from theworld.data.batches.collate import round_up
from theworld.model.build import load_model
from theworld.model.loss import answer_loss
from theworld.train.compilation import LENGTH_STEP, prepare_compilation
from theworld.train.run import train

COUNT = """
from pathlib import Path

from composer.core import Callback
from torch._dynamo.utils import counters


class Graphs(Callback):
    def batch_end(self, state, logger):
        with open({path!r}, "a") as file:
            print(counters["stats"]["unique_graphs"], file=file)
"""


@pytest.fixture(autouse=True)
def fresh_dynamo() -> Iterator[None]:
    before = torch._dynamo.config.capture_dynamic_output_shape_ops
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()
    torch._dynamo.config.capture_dynamic_output_shape_ops = before


def test_no_graph_break_in_decoder_layers_and_loss() -> None:
    prepare_compilation(Config(compile_config={}))
    model = load_model(load_config([SMOKE_YAML]).model).train()

    def step(embeds: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
        states = model.model.language_model(inputs_embeds=embeds, attention_mask=mask, use_cache=False)[0]
        return answer_loss(states, labels, mask, model.lm_head).loss

    embeds = torch.randn(2, 96, model.config.text_config.hidden_size, requires_grad=True)
    labels = torch.full((2, 96), -100)
    labels[:, 40:60] = 7
    inputs = (embeds, labels, torch.ones_like(labels))
    explained: Any = torch._dynamo.explain(step)(*inputs)  # pyright: ignore[reportCallIssue]
    assert explained.graph_break_count == 0, [str(reason) for reason in explained.break_reasons]
    torch._dynamo.reset()
    compiled = torch.compile(step, backend="eager", fullgraph=True)
    assert compiled(*inputs).item() == pytest.approx(step(*inputs).item(), rel=1e-6)


def test_the_loss_is_compiled_once_whatever_the_number_of_answers() -> None:
    prepare_compilation(Config(compile_config={}))
    torch.manual_seed(1)
    head = torch.nn.Linear(8, 50, bias=False)
    states = torch.randn(2, 40, 8, requires_grad=True)
    graphs = CompileCounter()
    compiled = torch.compile(lambda labels: answer_loss(states, labels, None, head), backend=graphs, fullgraph=True)
    for answers in (3, 9, 30, 0):
        labels = torch.full((2, 40), -100)
        labels[0, 2 : 2 + answers] = 7
        states.grad = None
        found = compiled(labels)
        found.loss.backward()
        gradient = states.grad
        states.grad = None
        expected = answer_loss(states, labels, None, head)
        expected.loss.backward()
        torch.testing.assert_close(found.loss, expected.loss)
        torch.testing.assert_close(gradient, states.grad)
        assert (found.tokens, found.correct) == (expected.tokens, expected.correct)
    assert graphs.frame_count == 1


def test_the_worlds_scatter_reads_no_value_on_the_host() -> None:
    """A tensor without data has no value to read: what asks for one fails."""
    model = load_model(load_config([SMOKE_YAML]).model).model
    embeds = torch.empty(2, 40, 64, device="meta")
    features = torch.empty(2, 18, 64, device="meta")
    ids = torch.empty(2, 40, dtype=torch.long, device="meta")
    assert model.scatter_world(ids, embeds, features).shape == embeds.shape


def test_a_compiled_run_has_the_same_losses_and_compiles_each_length_once(
    raw_sample: Path, mds_sample: Path, tmp_path: Path
) -> None:
    def run(folder: str, *overrides: str) -> list[float]:
        (tmp_path / folder).mkdir()
        settings = ("model.freeze.language=true", "max_duration=6ba", "device_train_microbatch_size=4", *overrides)
        config = run_config(raw_sample, mds_sample, tmp_path / folder, *settings)
        assert train(config) == 0
        return losses(config.save_folder)

    plain = run("plain")
    (tmp_path / "count_graphs.py").write_text(COUNT.format(path=str(tmp_path / "graphs")))
    counted = (f"code_paths=[{tmp_path / 'count_graphs.py'}]", "callbacks={'count_graphs:Graphs': {}}")
    compiled = run("compiled", "compile_config={backend: eager, dynamic: false}", *counted)
    assert compiled == pytest.approx(plain, rel=1e-4)
    graphs = [int(line) for line in (tmp_path / "graphs").read_text().split()]
    assert len(graphs) == 6
    assert graphs[0] > 0
    assert graphs[2:] == [graphs[2]] * 4, "something compiles again at later batches"


@pytest.mark.slow
def test_a_compiled_run_with_adapters_has_the_losses_of_the_plain_one(
    raw_sample: Path, mds_sample: Path, tmp_path: Path
) -> None:
    def run(folder: str, *overrides: str) -> tuple[list[float], dict[str, torch.Tensor]]:
        (tmp_path / folder).mkdir()
        lora = "model.lora={rank: 4, alpha: 16, parts: [language, vision]}"
        settings = ("model.freeze.language=true", lora, "optimizer.lr=1.0e-2", "train_loader.num_workers=0")
        more = (*settings, "scheduler.t_warmup=0ba", "max_duration=2ba", "device_train_microbatch_size=4")
        config = run_config(raw_sample, mds_sample, tmp_path / folder, *more, *overrides)
        assert train(config) == 0
        return losses(config.save_folder), saved_state(config)["model"]

    (plain, weights), before = run("plain"), counters["stats"]["unique_graphs"]
    compiled, again = run("compiled", "compile_config={backend: eager, dynamic: false}")
    assert counters["stats"]["unique_graphs"] > before
    assert compiled == pytest.approx(plain, rel=1e-4)
    assert again.keys() == weights.keys(), "a checkpoint of a compiled run has the plain names"
    assert sum("lora_B" in name and bool(one.any()) for name, one in again.items()) > 10


@needs_extra(*FOUR_BITS)
def test_layers_in_4_bits_compute_the_same_compiled() -> None:
    """In pieces: dynamo does not trace what bitsandbytes' parameters can do."""
    lora = ("model.lora={rank: 4, alpha: 16}", "model.freeze.language=true", "model.load_in_4bit=true")
    layer = load_model(load_config([SMOKE_YAML, *lora]).model).model.language_model.layers[0].mlp.train()
    adapters = [one for one in layer.parameters() if one.requires_grad]
    with torch.no_grad():
        for weight in adapters:
            weight += 0.01
    states = torch.randn(2, 9, 64)
    found = []
    for run in (layer, torch.compile(layer, backend="aot_eager")):
        loss = run(states).pow(2).mean()
        found.append([loss, *torch.autograd.grad(loss, adapters)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
    assert counters["stats"]["unique_graphs"]


def test_lengths_are_rounded_up_to_the_step() -> None:
    assert [round_up(length, LENGTH_STEP) for length in (1, 256, 257)] == [256, 256, 512]
    assert round_up(257, 1) == 257
