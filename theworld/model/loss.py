"""Cross entropy on the answers only, without the logits of anything else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from theworld.labels import IGNORE

CHUNK_TOKENS = 512
"""Answer tokens whose logits exist at the same time. At Gemma 3's vocabulary of 262,208, float32 logits, their
gradient and what the cross entropy keeps come to 3 MB a token (measured): 1.5 GB."""


@dataclass(frozen=True)
class LossOnAnswers:
    """Scalars: the mean loss over ``tokens`` answer tokens, ``correct`` of which have the highest logit. If asked for,
    the losses of each sample's answer tokens, summed, without gradient, and their number, both (B,)."""

    loss: Tensor
    tokens: Tensor
    correct: Tensor
    of_samples: Tensor | None = None
    tokens_of_samples: Tensor | None = None


def predicts_answer(labels: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Positions (B, L - 1) whose *next* token is an answer's.

    Padding is left out even where it has a label, as Gemma 3's own loss does.
    """
    wanted = labels[:, 1:] != IGNORE
    if attention_mask is not None and attention_mask.ndim == 2:
        wanted = wanted & (attention_mask[:, -wanted.shape[1] :] != 0).to(wanted.device)
    return wanted


def summed_loss(
    head: Callable[[Tensor], Tensor], states: Tensor, targets: Tensor, apart: bool = False
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Summed cross entropy of states (T, hidden) against targets (T,), how many have the highest logit, and, if wanted
    ``apart``, each one's cross entropy (T,) without gradient."""
    logits = head(states).float()
    correct = (logits.detach().argmax(dim=-1) == targets).sum()
    if not apart:
        return F.cross_entropy(logits, targets, reduction="sum"), correct, None
    each = F.cross_entropy(logits, targets, reduction="none")
    return each.sum(), correct, each.detach()


def sums_of_samples(each: Tensor, tokens: Tensor) -> Tensor:
    """Losses of answer tokens (T,), one sample's after the other's, summed by sample (B,).

    Nothing waits for the device: which sample a token is of follows from the numbers of tokens (B,).
    """
    places = torch.arange(len(each), device=each.device)
    samples = torch.searchsorted(tokens.cumsum(0), places, right=True).clamp(max=len(tokens) - 1)
    return each.new_zeros(len(tokens)).index_add(0, samples, each)


def answer_loss(
    hidden: Tensor,
    labels: Tensor,
    attention_mask: Tensor | None,
    head: Callable[[Tensor], Tensor],
    chunk_tokens: int = CHUNK_TOKENS,
    by_sample: bool = False,
) -> LossOnAnswers:
    """The mean cross entropy in float32 over the batch's answer tokens; 0 if there are none.

    Hidden states are selected before ``head`` is applied. With more than one chunk, logits are computed again in the
    backward pass, so that peak memory follows ``chunk_tokens`` and not the batch; compiled, there is one chunk.

    Args:
        hidden: last hidden states (B, L, hidden).
        labels: (B, L), :data:`IGNORE` where there is no loss; shifted here.
        attention_mask: (B, L), or None.
        head: hidden states (T, hidden) to logits (T, vocabulary).
        chunk_tokens: see :data:`CHUNK_TOKENS`.
        by_sample: sum the losses of each sample as well.
    """
    wanted = predicts_answer(labels, attention_mask)
    states = hidden[:, :-1][wanted]
    targets = labels[:, 1:][wanted].to(states.device)

    tokens = wanted.sum()
    if torch.compiler.is_compiling():
        # How many answers there are is a symbol, by which nothing can be cut. A row without loss keeps it above zero,
        # where operators would have to ask.
        states, targets = F.pad(states, (0, 0, 0, 1)), F.pad(targets, (0, 1), value=IGNORE)
        total, correct, each = summed_loss(head, states, targets, by_sample)
    elif len(targets) <= chunk_tokens:
        total, correct, each = summed_loss(head, states, targets, by_sample)
    else:
        total, correct = states.new_zeros((), dtype=torch.float32), targets.new_zeros(())
        chunks: list[Tensor] = []
        for some_states, some_targets in zip(states.split(chunk_tokens), targets.split(chunk_tokens), strict=True):
            # The head has no dropout, so there is no random state to restore.
            result: Any = checkpoint(
                summed_loss, head, some_states, some_targets, by_sample, use_reentrant=False, preserve_rng_state=False
            )
            part, right, losses = result
            total, correct = total + part, correct + right
            chunks += [losses] if by_sample else []
        each = torch.cat(chunks) if by_sample else None
    found = LossOnAnswers(total / tokens.clamp(min=1), tokens, correct)
    if each is None:
        return found
    of_samples = wanted.sum(dim=1).to(each.device)
    return replace(found, of_samples=sums_of_samples(each, of_samples), tokens_of_samples=of_samples)
