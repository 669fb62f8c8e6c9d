"""Weights of real width, the real vocabulary and few layers, loaded as a stage loads them.

What a tiny model cannot show: the released files' names and division, the embedding that dwarfs everything else and is
the head as well, its scale in bfloat16, rotary frequencies as they are stretched for the long context, the real VAE.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Gemma3ForConditionalGeneration

from tests.helpers.loading import loaded_by_ranks
from theworld.config.schema import FreezeConfig, ModelConfig
from theworld.model import TheWorldForConditionalGeneration, TheWorldProcessor, load_model
from theworld.train.composer_model import ComposerTheWorld

pytestmark = pytest.mark.realsize

TOKENS = 2000
HALF = torch.bfloat16
Pair = tuple[TheWorldForConditionalGeneration, Gemma3ForConditionalGeneration]


@pytest.fixture(scope="module")
def pair(weighted_config: ModelConfig) -> Pair:
    """The trainer's model without a world, language frozen, and the stock one."""
    settings = ModelConfig(
        gemma=weighted_config.gemma,
        cosmos=weighted_config.cosmos,
        enable_world=False,
        freeze=FreezeConfig(vision=False),  # something has to train
    )
    own = load_model(settings, frozen_dtype=HALF)
    return own, Gemma3ForConditionalGeneration.from_pretrained(weighted_config.gemma, dtype=HALF)


def words() -> dict[str, Tensor]:
    """A sequence longer than the sliding window, which is the real one of 1,024 tokens."""
    ids = torch.randint(1000, 200_000, (1, TOKENS), generator=torch.Generator().manual_seed(3))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}


def made_of_words(model: torch.nn.Module, inner: Any) -> tuple[Tensor, Tensor]:
    """The last hidden states at all places, and the logits at some: those of all would take as long as ten layers.

    Args:
        model: what is called.
        inner: the Gemma 3 in it.
    """
    states: list[Tensor] = []
    hook = inner.model.language_model.norm.register_forward_hook(lambda *called: states.append(called[2]))
    inputs = {**words(), "logits_to_keep": torch.tensor([0, 600, 1023, 1500, TOKENS - 1])}
    with torch.no_grad():
        logits = model(inputs).logits if isinstance(model, ComposerTheWorld) else model(**inputs).logits
    hook.remove()
    assert states[0].shape == (1, TOKENS, 2560)
    assert logits.shape[1] == 5
    return states[0], logits


def test_weights_and_buffers_are_the_stock_models(pair: Pair) -> None:
    own, stock = pair
    theirs = dict(stock.named_parameters()) | dict(stock.named_buffers())
    ours = dict(own.named_parameters()) | dict(own.named_buffers())
    assert ours.keys() == theirs.keys()
    assert any("rotary_emb.inv_freq" in name for name in theirs)
    for name, value in theirs.items():
        if ours[name].requires_grad:
            assert ours[name].dtype == torch.float32
        else:
            assert ours[name].dtype == value.dtype, name
        assert torch.equal(ours[name].to(value.dtype), value), name
    assert own.lm_head.weight is own.get_input_embeddings().weight


def test_logits_are_the_stock_models_to_the_bit(pair: Pair) -> None:
    own, stock = pair
    states, logits = made_of_words(own.eval(), own)
    expected_states, expected_logits = made_of_words(stock.eval(), stock)
    assert torch.equal(states, expected_states)
    assert torch.equal(logits, expected_logits)


def test_logits_in_composers_training_are_the_stock_models_to_the_bit(
    pair: Pair, real_processor: TheWorldProcessor
) -> None:
    own, stock = pair
    trained = ComposerTheWorld(own, real_processor).train()
    with torch.autocast("cpu", HALF):
        states, logits = made_of_words(trained, own)
        expected_states, expected_logits = made_of_words(stock.train(), stock)
    assert own.training
    assert torch.equal(states, expected_states)
    assert torch.equal(logits, expected_logits)


def test_a_rank_has_little_memory_of_its_own_after_loading(weighted_config: ModelConfig) -> None:
    ranks = loaded_by_ranks(2, weighted_config.gemma, weighted_config.cosmos)
    print(ranks)
    assert ranks[0]["digest"] == ranks[1]["digest"]
    for rank in ranks:
        assert rank["weights"] > 1.5e9
        # The VAE is the exception: its file has float32, and its copy in bfloat16 is a rank's own.
        assert rank["private"] < 0.4 * rank["weights"]
        # The files' own pages count here. Cast to float32 in the memory of the rank it would be twice as much beside.
        assert rank["peak"] < 1.5 * rank["weights"]
