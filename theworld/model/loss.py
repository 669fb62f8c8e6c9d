"""Cross entropy on the answers only, without the logits of anything else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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
    """Scalars: the mean loss over ``tokens`` answer tokens, ``correct`` of which have the highest logit."""

    loss: Tensor
    tokens: Tensor
    correct: Tensor


def predicts_answer(labels: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Positions (B, L - 1) whose *next* token is an answer's.

    Padding is left out even where it has a label, as Gemma 3's own loss does.
    """
    wanted = labels[:, 1:] != IGNORE
    if attention_mask is not None and attention_mask.ndim == 2:
        wanted = wanted & (attention_mask[:, -wanted.shape[1] :] != 0).to(wanted.device)
    return wanted


def summed_loss(head: Callable[[Tensor], Tensor], states: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Summed cross entropy of states (T, hidden) against targets (T,), and how many have the highest logit."""
    logits = head(states).float()
    correct = (logits.detach().argmax(dim=-1) == targets).sum()
    return F.cross_entropy(logits, targets, reduction="sum"), correct


def answer_loss(
    hidden: Tensor,
    labels: Tensor,
    attention_mask: Tensor | None,
    head: Callable[[Tensor], Tensor],
    chunk_tokens: int = CHUNK_TOKENS,
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
    """
    wanted = predicts_answer(labels, attention_mask)
    states = hidden[:, :-1][wanted]
    targets = labels[:, 1:][wanted].to(states.device)

    tokens = wanted.sum()
    if torch.compiler.is_compiling():
        # How many answers there are is a symbol, by which nothing can be cut. A row without loss keeps it above zero,
        # where operators would have to ask.
        states, targets = F.pad(states, (0, 0, 0, 1)), F.pad(targets, (0, 1), value=IGNORE)
        total, correct = summed_loss(head, states, targets)
    elif len(targets) <= chunk_tokens:
        total, correct = summed_loss(head, states, targets)
    else:
        total, correct = states.new_zeros((), dtype=torch.float32), targets.new_zeros(())
        for some_states, some_targets in zip(states.split(chunk_tokens), targets.split(chunk_tokens), strict=True):
            # The head has no dropout, so there is no random state to restore.
            result: Any = checkpoint(
                summed_loss, head, some_states, some_targets, use_reentrant=False, preserve_rng_state=False
            )
            part, right = result
            total, correct = total + part, correct + right
    return LossOnAnswers(total / tokens.clamp(min=1), tokens, correct)
