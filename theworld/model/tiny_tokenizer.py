"""The tokenizer of ``builtin:tiny``: Gemma's special tokens over a small vocabulary trained from a few sentences."""

from __future__ import annotations

import json
import string

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import GemmaTokenizerFast

MASK_TOKEN = "<mask>"
"""Added, but not special, as in Gemma's own tokenizer."""
FIRST_TOKENS = (
    "<pad>",
    "<eos>",
    "<bos>",
    "<unk>",
    MASK_TOKEN,
    "<start_of_turn>",
    "<end_of_turn>",
    "<start_of_image>",
    "<end_of_image>",
)
SPECIAL_TOKENS = tuple(token for token in FIRST_TOKENS if token != MASK_TOKEN)
IMAGE_TOKEN = "<image_soft_token>"
SPACE = "\u2581"
"""How Gemma's vocabularies write a space."""

LEARNED_TOKENS = 640
"""Characters and merges; with special tokens and bytes about 900 tokens in all."""


def words(text: str) -> list[str]:
    return text.split()


THINGS = words(
    "box ball house tree car truck person man woman child chair table cup bottle tower wall door window building sign "
    "lamp dog cat horse bird boat bicycle bus train shelf plant flower bag book clock sofa bed ring cylinder cone cube "
    "sphere disc star triangle square circle rectangle diamond bar block crate barrel kite shape object"
)
ADJECTIVES = words(
    "red green blue yellow orange purple pink brown black white grey gray cyan teal small large big tall short wide "
    "narrow thin taller shorter wider narrower thinner bigger smaller larger higher lower closer farther nearer "
    "striped checkered dotted plain bright dark"
)
UNITS = words("inches feet meters centimeters metres centimetres yards millimeters inch foot meter centimeter")
SENTENCES = (
    "Is the {thing} represented by Region [0] to the left of Region [1]?",
    "Does Region [2] have a greater width compared to Region [3]?",
    "In fact, Region [0] might be narrower than Region [1].",
    "Which of these two, Region [0] or Region [1], stands taller?",
    "Standing taller between the two is Region [1].",
    "Which is above, the {adjective} {thing} or Region [4]? Region [4] is above the {thing}.",
    "Between Region [0] and Region [1], which one has more height, and which has less width?",
    "How far away is Region [0] from Region [1] horizontally? Vertically? In total?",
    "Region [0] is 12.57 {unit} away from Region [1] vertically.",
    "Region [0] and Region [1] are 3.65 {unit} apart from each other horizontally.",
    "What is the approximate height of Region [0]? The height of Region [0] is 39.78 {unit}.",
    "Could you measure the distance between them? A distance of 7.24 {unit} exists between the two.",
    "You are a mechanic and you need to store the {adjective} {thing} in a storage room. Can you store it there?",
    "You are a tourist looking at a map of a city. You see a {thing} and a {adjective} {thing}.",
    "No, Region [0] is behind Region [1]. Yes, Region [0] is in front of Region [1]. Correct. Incorrect.",
    "Can you confirm if Region [0] is smaller than Region [1]? Indeed, Region [0] has a smaller size.",
    "Who is positioned more to the right, on the right side from the viewer's perspective? It is at the bottom.",
    "At what clock position would you find Region [1] if you look from Region [0]? Region [1] is at 3 o'clock.",
    "How many regions are there, and is the {thing} below the {adjective} {thing}? It is 5.1 {unit} wide.",
    "The image shows a {adjective} {thing}. How wide is the {thing}? The width of the {thing} is 2.08 {unit}.",
    "Does it appear on the left side? Actually, it is not; it is farther from the camera, closer to the viewer.",
    "user model user model",
)


def sentences() -> list[str]:
    """The text that the vocabulary is trained on, the same every time."""
    texts = []
    for index, thing in enumerate(THINGS):
        adjective, unit = ADJECTIVES[index % len(ADJECTIVES)], UNITS[index % len(UNITS)]
        texts += [sentence.format(thing=thing, adjective=adjective, unit=unit) for sentence in SENTENCES]
    return texts + [f"The {adjective} one is the {adjective} one." for adjective in ADJECTIVES]


def _skeleton(model: models.BPE) -> Tokenizer:
    """Gemma's way of reading and writing text around ``model``: spaces are kept, digits and newlines stand alone."""
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Replace(" ", SPACE)  # type: ignore[assignment]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(  # type: ignore[assignment]
        [
            pre_tokenizers.Split(SPACE, behavior="merged_with_next"),
            pre_tokenizers.Split(Regex(r"[0-9\n]"), behavior="isolated"),
        ]
    )
    tokenizer.decoder = decoders.Sequence(  # type: ignore[assignment]
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return tokenizer


def build_tokenizer() -> GemmaTokenizerFast:
    """Train the tokenizer. Any text encodes: what the vocabulary lacks falls back to its UTF-8 bytes."""
    learner = _skeleton(models.BPE())
    alphabet = [*sorted(set(string.printable) - set("\t\r\x0b\x0c ")), SPACE]
    trainer = trainers.BpeTrainer(  # type: ignore[call-arg]
        vocab_size=LEARNED_TOKENS, initial_alphabet=alphabet, special_tokens=[], show_progress=False
    )
    learner.train_from_iterator(sentences(), trainer)
    learned = json.loads(learner.to_str())["model"]
    # Bytes are ordinary tokens, not special ones: as special tokens, decoding would drop them.
    tokens = [*FIRST_TOKENS, *(f"<0x{byte:02X}>" for byte in range(256)), *learned["vocab"], IMAGE_TOKEN]
    model = models.BPE(
        vocab={token: index for index, token in enumerate(dict.fromkeys(tokens))},
        merges=[(left, right) for left, right in learned["merges"]],
        unk_token="<unk>",
        byte_fallback=True,
        fuse_unk=True,
    )
    tokenizer = _skeleton(model)
    tokenizer.add_tokens([AddedToken(MASK_TOKEN, special=False, normalized=False)])
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in (*SPECIAL_TOKENS, IMAGE_TOKEN)])
    return GemmaTokenizerFast(
        tokenizer_object=tokenizer,
        padding_side="left",
        extra_special_tokens={
            "image_token": IMAGE_TOKEN,
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
        },
    )
