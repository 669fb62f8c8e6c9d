"""Ask a model about a picture: python recipes/ask.py RUN_OR_REPO IMAGE ["question"] [--box x1,y1,x2,y2 ...]

RUN_OR_REPO is a run's save_folder, an exported folder, OWNER/NAME on the Hub, or a plain Gemma 3. Boxes are drawn into
the picture and numbered as in training; the question calls them Region [0], Region [1], or <mask> in the order of the
boxes. Without a question it is a conversation: one question a line, /reset forgets the turns, /box x1,y1,x2,y2 adds a
box, /image FILE takes another picture instead, /also FILE one more, /compare RUN_OR_REPO asks another model the last
question (without a name: the one compared with before), an empty line or the end of the input ends it. What changes
boxes or pictures forgets the turns as well.

With --image FILE, as often as wanted, it is about several pictures: these behind IMAGE, in the order given. Each stands
where the first question says <image>, once for each; without any all stand in front of it, as in training. Boxes are of
IMAGE, the first picture, as those of training data are that do not say which picture they are in.

Exit code 0: answered, 2: bad input.
"""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Callable
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
    parser.add_argument("image", metavar="IMAGE", type=Path, help="the (first) picture")
    parser.add_argument("question", metavar="QUESTION", nargs="?", help="(default: a conversation)")
    parser.add_argument(
        "--image", metavar="FILE", dest="more", action="append", default=[], type=Path, help="one more picture"
    )
    parser.add_argument(
        "--box", metavar="x1,y1,x2,y2", action="append", default=[], help="a region of IMAGE, in pixels"
    )
    parser.add_argument("--checkpoint", metavar="NAME", help="of a run (default: the newest that is whole)")
    parser.add_argument("--world", choices=WORLDS, default="on", help="what stands for the pictures' world tokens")
    parser.add_argument("--max-new-tokens", metavar="N", type=int, default=256, help="the longest answer")
    parser.add_argument("--json", action="store_true", help="print answer, question, boxes and model as JSON")
    parser.add_argument(
        "--save", metavar="PNG", type=Path, help="write the picture as the model saw it; several: side by side"
    )
    given = parser.parse(argv)
    if given.json and given.question is None:
        raise UserError("recipes/ask.py: --json needs a QUESTION (see --help)")
    from theworld.inference.conversation import Conversation, open_picture, parse_box

    pictures = [open_picture(path) for path in (given.image, *given.more)]
    talk = Conversation(pictures, [parse_box(text) for text in given.box])
    # What is wrong with boxes and question is said before any model loads.
    if given.question is not None:
        talk.question(given.question)
    answerer = load(given, given.model, given.checkpoint)
    talk.draws_boxes = answerer.trained.draws_boxes
    if given.save is not None:
        save(talk, given.save)
    if given.question is None:
        Dialogue(talk, answerer, partial(load, given)).run()
    elif given.json:
        cli.say(json.dumps(as_json(given, talk, answerer)))
    else:
        answer_aloud(talk, answerer, given.question)
    return EXIT_DONE


def load(given: Namespace, model: str, checkpoint: str | None = None) -> Answerer:
    """A model to ask, with the settings of the command line."""
    from theworld.inference.answering import Answerer
    from theworld.inference.load_trained import load_trained

    return Answerer(load_trained(model, checkpoint), given.max_new_tokens, given.world)


def save(talk: Conversation, path: Path) -> None:
    """Write the pictures as the model sees them."""
    from theworld.inference.side_by_side import side_by_side

    try:
        side_by_side(talk.seen()).save(path)
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


class Dialogue:
    """Questions and commands from the terminal.

    Args:
        talk: the pictures and what was said about them.
        answerer: the model that is asked.
        load: a name to another model.
    """

    def __init__(self, talk: Conversation, answerer: Answerer, load: Callable[[str], Answerer]) -> None:
        self.talk, self.answerer, self.load = talk, answerer, load
        self.other: Answerer | None = None

    def run(self) -> None:
        """Until the input ends; what is wrong with a line is said, and the next one read."""
        while True:
            if sys.stdin.isatty():
                print("> ", end="", flush=True)
            line = sys.stdin.readline().strip()
            if not line:
                return
            try:
                self.obey(line) if line.startswith("/") else answer_aloud(self.talk, self.answerer, line)
            except UserError as error:
                cli.say_error(str(error), 0)

    def obey(self, line: str) -> None:
        """One of the commands of a conversation."""
        from theworld.inference.conversation import open_picture, parse_box

        name, _, rest = line.partition(" ")
        if name == "/box":
            self.talk.add_box(parse_box(rest))
        elif name == "/image":
            self.talk.take_picture(open_picture(Path(rest)))
        elif name == "/also":
            self.talk.add_picture(open_picture(Path(rest)))
        elif name == "/compare":
            self.compare(rest.strip())
        elif name == "/reset":
            self.talk.forget()
        else:
            raise UserError(f"{name}: expected /box, /image, /also, /compare or /reset")

    def compare(self, model: str) -> None:
        """Ask another model the last question, after the same turns."""
        if not self.talk.turns:
            raise UserError("/compare: ask a question first")
        if model:
            self.other = self.load(model)
        if self.other is None:
            raise UserError("/compare: expected a model, /compare RUN_OR_REPO")
        cli.say(f"{self.other.trained.name}:")
        answer_aloud(self.talk.with_other(self.other.trained.draws_boxes), self.other, self.talk.turns[-1].question)


command = partial(cli.run, main)
