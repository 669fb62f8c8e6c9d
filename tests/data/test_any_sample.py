"""Whatever converts also encodes, decodes and collates: properties over texts, boxes and turns."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pictures import jpeg_of

from theworld.config.schema import ModelConfig, ProjectorConfig
from theworld.data.batches.collate import Collator
from theworld.data.batches.sample_encoder import EncodedSample, SampleEncoder
from theworld.data.entries.check_entry import BadEntry, check_entry
from theworld.data.entries.columns import Picture, columns_with, encode_record, of_entry
from theworld.data.entries.columns import sample_of as sample_of_record
from theworld.data.samples import decode_sample
from theworld.labels import IGNORE
from theworld.model.build import load_processor
from theworld.model.processing import TheWorldProcessor
from theworld.train.data import SampleTransform

TINY = ModelConfig(
    gemma="builtin:tiny", cosmos="builtin:tiny", world_image_size=64, projector=ProjectorConfig(mode="patch", patch=4)
)
PROCESSOR = load_processor(TINY)
TRANSFORM = SampleTransform(SampleEncoder(PROCESSOR, 100_000), draw_bboxes=True)
PICTURE = jpeg_of(64, 48)
COLUMNS = columns_with()

SPECIAL = [token.content for token in PROCESSOR.tokenizer.added_tokens_decoder.values()]
PIECES = st.one_of(
    st.sampled_from([*SPECIAL, "<image>\n", "<mask> <depth>", "Region [0]", "Region [" + "9" * 5000 + "]", "\n", " "]),
    st.text(max_size=8),
    st.characters(categories=["Cs"]),  # lone surrogates
)
TEXTS = st.lists(PIECES, max_size=6).map("".join)
NUMBERS = st.one_of(st.floats(), st.integers(), st.just(10**400))
BOXES = st.lists(NUMBERS, min_size=4, max_size=4)


@st.composite
def entries(draw: st.DrawFn) -> dict[str, Any]:
    """An entry with as many boxes as mentions; its texts and numbers are anything."""
    turns = draw(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=3))
    conversations = [
        {"from": who, "value": text} for pair in turns for who, text in zip(("human", "gpt"), pair, strict=True)
    ]
    mentions = sum(question.count("<mask>") for question, _ in turns)
    boxes = draw(st.lists(BOXES, min_size=mentions, max_size=mentions))
    return {"filename": "00ab", "conversations": conversations, "bbox": boxes, "rle": []}


def sample_of(entry: dict[str, Any]) -> dict[str, Any] | None:
    """The MDS sample, by way of the columns' own text; None if the entry is rejected."""
    try:
        check_entry(entry, keep_masks=False)
        record = encode_record(entry, of_entry(COLUMNS))
    except BadEntry:
        return None
    return sample_of_record(record, Picture(PICTURE, 64, 48), COLUMNS)


def labelled(encoded: EncodedSample) -> list[list[int]]:
    """Token ids of each unbroken run of labels."""
    runs: list[list[int]] = [[]]
    for label in encoded.labels:
        if label != IGNORE:
            runs[-1].append(label)
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(entries())
def test_what_converts_is_trained_on_as_it_is(entry: dict[str, Any]) -> None:
    sample = sample_of(entry)
    if sample is None:
        return
    encoded = TRANSFORM(sample, epoch=0)
    assert encoded.no_loss in (None, "no question with a usable answer")
    Collator(PROCESSOR)([encoded, encoded])
    turns = decode_sample(sample).turns
    check_tokens(encoded, PROCESSOR, max(1, len(turns)))
    if encoded.no_loss is None:
        answers = [TRANSFORM.encoder.escape(turn.answer) for turn in turns]
        decoded = [PROCESSOR.tokenizer.decode(run) for run in labelled(encoded)]
        assert decoded == [f"{answer}<end_of_turn>" for answer in answers]


def check_tokens(encoded: EncodedSample, processor: TheWorldProcessor, turns: int) -> None:
    """World and image tokens are the picture's, turns are the template's, and a mask is nobody's."""
    start, end, soft = processor.world_token_ids
    expected = {
        start: 1,
        end: 1,
        soft: processor.num_world_tokens,
        processor.tokenizer.image_token_id: processor.image_seq_length,
    }
    named = {"<bos>": 1, "<start_of_turn>": 2 * turns, "<end_of_turn>": 2 * turns, "<mask>": 0, "<eos>": 0}
    named |= {"<start_of_image>": 1, "<end_of_image>": 1}
    expected |= {processor.tokenizer.convert_tokens_to_ids(token): count for token, count in named.items()}
    assert {token: encoded.input_ids.count(token) for token in expected} == expected


@pytest.mark.parametrize("latents", [False, True])
def test_a_sample_that_cannot_be_encoded_has_no_loss_and_says_why(latents: bool) -> None:
    """Of a data set written before texts were checked: half a character, which no tokenizer takes."""
    turns = [{"from": "human", "value": "Is it wide?"}, {"from": "gpt", "value": "half \ud83d"}]
    sample: dict[str, Any] = {"id": "00ab", "image": PICTURE, "width": 64, "height": 48, "conversations": turns}
    sample["bbox"] = []
    transform = SampleTransform(SampleEncoder(PROCESSOR, 4096, world_latents=latents), draw_bboxes=True)
    encoded = transform(sample, epoch=0)
    assert encoded.id == "00ab"
    assert str(encoded.no_loss).startswith("sample cannot be encoded: ")
    assert set(encoded.labels) == {IGNORE}
    honest: dict[str, Any] = dict(sample, conversations=[turns[0], {"from": "gpt", "value": "No."}])
    if latents:
        honest["world_latents"] = bytes(16 * 8 * 8 * 2)
    batch = Collator(PROCESSOR)([encoded, transform(honest, epoch=0)])
    assert batch["skipped"] == [encoded.no_loss, ""]
