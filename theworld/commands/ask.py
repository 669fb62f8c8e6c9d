"""Ask a model about a picture: python recipes/ask.py RUN_OR_REPO IMAGE ["question"] [--box x1,y1,x2,y2 ...]

RUN_OR_REPO is a run's save_folder, an exported folder, OWNER/NAME on the Hub, or a plain Gemma 3. Boxes are drawn into
the picture and numbered as in training; the question calls them Region [0], Region [1], or <mask> in the order of the
boxes. Without a question it is a conversation: one question a line, /reset forgets the turns, /box x1,y1,x2,y2 adds a
box, /image FILE takes another picture, an empty line or the end of the input ends it.
Exit code 0: answered, 2: bad input.
"""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from theworld import cli
from theworld.errors import EXIT_DONE, UserError

if TYPE_CHECKING:
    from theworld.inference.answering import Answerer
    from theworld.inference.conversation import Conversation

WORLDS = ("on", "off", "zero")


def main(argv: list[str]) -> int:
    parser = cli.Parser("recipes/ask.py", __doc__)
    parser.add_argument("model", metavar="RUN_OR_REPO", help="the model")
    parser.add_argument("image", metavar="IMAGE", type=Path, help="the picture")
    parser.add_argument("question", metavar="QUESTION", nargs="?", help="(default: a conversation)")
    parser.add_argument("--box", metavar="x1,y1,x2,y2", action="append", default=[], help="a region, in pixels")
    parser.add_argument("--checkpoint", metavar="NAME", help="of a run (default: the newest that is whole)")
    parser.add_argument("--world", choices=WORLDS, default="on", help="what stands for the picture's world tokens")
    parser.add_argument("--max-new-tokens", metavar="N", type=int, default=256, help="the longest answer")
    parser.add_argument("--json", action="store_true", help="print answer, question, boxes and model as JSON")
    parser.add_argument("--save", metavar="PNG", type=Path, help="write the picture as the model saw it")
    given = parser.parse(argv)
    if given.json and given.question is None:
        raise UserError("recipes/ask.py: --json needs a QUESTION (see --help)")
    from theworld.inference.conversation import Conversation, open_picture, parse_box

    talk = Conversation(open_picture(given.image), [parse_box(text) for text in given.box])
    # What is wrong with boxes and question is said before any model loads.
    if given.question is not None:
        talk.question(given.question)
    answerer = load(given, talk)
    if given.save is not None:
        save(talk, given.save)
    if given.question is None:
        converse(talk, answerer)
    elif given.json:
        cli.say(json.dumps(as_json(given, talk, answerer)))
    else:
        answer_aloud(talk, answerer, given.question)
    return EXIT_DONE


def load(given: Namespace, talk: Conversation) -> Answerer:
    """The model, and whether its pictures have boxes in them."""
    from theworld.inference.answering import Answerer
    from theworld.inference.load_trained import load_trained

    trained = load_trained(given.model, given.checkpoint)
    talk.draws_boxes = trained.draws_boxes
    return Answerer(trained, given.max_new_tokens, given.world)


def save(talk: Conversation, path: Path) -> None:
    """Write the picture as the model sees it."""
    try:
        talk.seen().save(path)
    except (OSError, ValueError) as error:
        raise UserError(f"--save {path}: {error}") from error


def as_json(given: Namespace, talk: Conversation, answerer: Answerer) -> dict[str, Any]:
    """What ``--json`` prints."""
    answer = talk.ask(answerer, given.question)
    boxes = [list(box) for box in talk.boxes]
    return {"answer": answer, "question": talk.turns[-1].question, "boxes": boxes, "model": answerer.trained.name}


def answer_aloud(talk: Conversation, answerer: Answerer, question: str) -> None:
    """Print an answer while it is written."""
    from transformers import TextStreamer

    talk.ask(answerer, question, TextStreamer(answerer.tokenizer, skip_prompt=True, skip_special_tokens=True))


def converse(talk: Conversation, answerer: Answerer) -> None:
    """Questions and commands from the terminal until it ends; what is wrong with one is said, and the next asked."""
    while True:
        if sys.stdin.isatty():
            print("> ", end="", flush=True)
        line = sys.stdin.readline().strip()
        if not line:
            return
        try:
            obey(talk, line) if line.startswith("/") else answer_aloud(talk, answerer, line)
        except UserError as error:
            cli.say_error(str(error), 0)


def obey(talk: Conversation, line: str) -> None:
    """One of the commands of a conversation."""
    from theworld.inference.conversation import open_picture, parse_box

    name, _, rest = line.partition(" ")
    if name == "/box":
        before = talk.boxes
        talk.boxes = [*before, parse_box(rest)]
        try:
            _ = talk.regions
        except UserError:
            talk.boxes = before
            raise
    elif name == "/image":
        talk.picture, talk.boxes = open_picture(Path(rest)), []
    elif name != "/reset":
        raise UserError(f"{name}: expected /box, /image or /reset")
    # Another picture, or another numbering: what was said before was about something else.
    talk.turns.clear()


command = partial(cli.run, main)
