"""The chunked loss on the answers against PyTorch's own cross entropy on everything."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from theworld.model.loss import answer_loss, predicts_answer

HIDDEN, VOCABULARY = 16, 50


def inputs(answers: int, length: int = 21) -> tuple[Tensor, Tensor, nn.Linear]:
    """Hidden states (3, length, 16), labels with ``answers`` of them that carry loss, and a head."""
    generator = torch.Generator().manual_seed(answers)
    hidden = torch.randn(3, length, HIDDEN, generator=generator, requires_grad=True)
    labels = torch.full((3, length), -100)
    places = torch.randperm(3 * (length - 1), generator=generator)[:answers]
    labels[places // (length - 1), places % (length - 1) + 1] = torch.randint(
        0, VOCABULARY, (answers,), generator=generator
    )
    head = nn.Linear(HIDDEN, VOCABULARY, bias=False)
    return hidden, labels, head


def plain_loss(hidden: Tensor, labels: Tensor, head: nn.Linear) -> Tensor:
    return F.cross_entropy(head(hidden)[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)


@pytest.mark.parametrize("chunk", [1, 7, 30, 31, 1000])
def test_loss_and_gradients_equal_the_plain_ones(chunk):
    hidden, labels, head = inputs(answers=30)
    expected = torch.autograd.grad(plain_loss(hidden, labels, head), [hidden, head.weight])
    result = answer_loss(hidden, labels, None, head, chunk_tokens=chunk)
    gradients = torch.autograd.grad(result.loss, [hidden, head.weight])
    assert result.loss.item() == pytest.approx(plain_loss(hidden, labels, head).item(), rel=1e-6)
    torch.testing.assert_close(gradients, expected)
    assert result.tokens == 30


@pytest.mark.parametrize("chunk", [4, 1000])
def test_correct_counts_answers_with_the_highest_logit(chunk):
    hidden, labels, head = inputs(answers=12)
    with torch.no_grad():
        best = head(hidden).argmax(-1)
    rows, columns = (labels != -100).nonzero(as_tuple=True)
    labels[rows, columns] = (best[rows, columns - 1] + 1) % VOCABULARY
    labels[rows[:5], columns[:5]] = best[rows[:5], columns[:5] - 1]
    assert answer_loss(hidden, labels, None, head, chunk_tokens=chunk).correct == 5


def test_no_answers_give_zero_and_zero_gradients():
    hidden, labels, head = inputs(answers=0)
    result = answer_loss(hidden, labels, None, head)
    result.loss.backward()
    assert (result.loss, result.tokens, result.correct) == (0, 0, 0)
    assert hidden.grad is not None
    assert not hidden.grad.any()
    assert head.weight.grad is not None
    assert not head.weight.grad.any()


def test_a_label_on_padding_carries_no_loss():
    labels = torch.tensor([[5, 6, -100, 7, 8]])
    assert predicts_answer(labels, None).tolist() == [[True, False, True, True]]
    assert predicts_answer(labels, torch.tensor([[1, 1, 1, 1, 0]])).tolist() == [[True, False, True, False]]


def test_the_head_sees_answers_only_and_never_more_than_a_chunk():
    hidden, labels, head = inputs(answers=23)
    seen = []
    head.register_forward_hook(lambda _, arguments, __: seen.append(len(arguments[0])))
    answer_loss(hidden, labels, None, head, chunk_tokens=10)
    assert seen == [10, 10, 3]


def test_low_precision_logits_are_summed_in_float32():
    hidden, labels, head = inputs(answers=60)
    half = head.to(torch.bfloat16)
    result = answer_loss(hidden.to(torch.bfloat16), labels, None, half, chunk_tokens=20)
    logits = half(hidden.to(torch.bfloat16)).float()[:, :-1].flatten(0, 1)
    assert result.loss.dtype == torch.float32
    assert result.loss.item() == pytest.approx(F.cross_entropy(logits, labels[:, 1:].flatten()).item(), rel=1e-5)


MEASURE = """
import sys, torch
from pathlib import Path
from theworld.model.loss import answer_loss
chunk = int(sys.argv[1])
tokens, width, vocabulary = 1024, 64, 262_208
head = torch.nn.Linear(width, vocabulary, bias=False).requires_grad_(False)
hidden = torch.randn(1, tokens + 1, width, requires_grad=True)
labels = torch.randint(0, vocabulary, (1, tokens + 1))
# Not getrusage: its peak begins with that of the process which started this one.
def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
before = peak()
answer_loss(hidden, labels, None, head, chunk_tokens=chunk).loss.backward()
print(peak() - before)
"""


@pytest.mark.slow
def test_peak_memory_at_gemmas_vocabulary_follows_the_chunk():
    """1,024 answer tokens at a vocabulary of 262,208, forward and backward, in processes of their own."""

    def growth(chunk: int) -> float:
        run = subprocess.run([sys.executable, "-c", MEASURE, str(chunk)], capture_output=True, text=True, check=True)
        return int(run.stdout) / 1e6

    plain, chunked = growth(1024), growth(128)
    print(f"peak memory of the loss at 1,024 tokens: plain {plain:.2f} GB, chunks of 128 {chunked:.2f} GB")
    assert chunked < plain / 4


@pytest.mark.parametrize("chunk", [3, 100])
def test_the_losses_of_samples_are_those_of_each_alone(chunk: int) -> None:
    hidden, labels, head = inputs(answers=30)
    labels[1] = -100
    whole = answer_loss(hidden, labels, None, head, chunk_tokens=chunk)
    result = answer_loss(hidden, labels, None, head, chunk_tokens=chunk, by_sample=True)
    torch.testing.assert_close(result.loss, whole.loss)
    assert (whole.of_samples, whole.tokens_of_samples) == (None, None)
    assert result.of_samples is not None
    assert result.tokens_of_samples is not None
    assert not result.of_samples.requires_grad
    for row in range(len(labels)):
        alone = answer_loss(hidden[row : row + 1], labels[row : row + 1], None, head)
        assert result.tokens_of_samples[row] == alone.tokens
        torch.testing.assert_close(result.of_samples[row], (alone.loss * alone.tokens).detach())
    assert result.tokens_of_samples[1] == 0
