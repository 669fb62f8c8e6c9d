"""A page in the browser on which a model is asked about a picture: a picture, boxes drawn with the mouse, questions."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import gradio as gr

from theworld.data.samples.regions import Turn
from theworld.errors import UserError
from theworld.inference.answering import Answerer
from theworld.inference.conversation import Box, Conversation, open_picture, parse_box

LONGEST_SIDE = 1600
"""Pixels of the picture that is sent to the browser to draw on; the model gets the whole one."""


@dataclass
class Talk:
    """What a visitor has said so far, and about what."""

    about: tuple[str, str] = ("", "")
    """The picture's file and the text of its boxes."""
    turns: list[Turn] = field(default_factory=list)


def build_page(answerer: Answerer) -> gr.Blocks:
    """The page; ``launch()`` it."""
    canvas = files("theworld.inference").joinpath("canvas.js").read_text(encoding="utf-8")
    with gr.Blocks(title=f"Ask {answerer.trained.name}", analytics_enabled=False) as page:
        gr.Markdown(f"Ask **{answerer.trained.name}**: drop a picture, draw boxes on it, ask about Region [0], ...")
        talk = gr.State(Talk())
        with gr.Row():
            with gr.Column():
                file = gr.File(label="Picture", file_types=["image"], elem_id="picture")
                area = gr.HTML(
                    html_template="<canvas hidden style='max-width:100%;cursor:crosshair;touch-action:none'></canvas>",
                    js_on_load=canvas,
                    elem_id="area",
                )
                boxes = gr.Textbox(label="Boxes: x1,y1,x2,y2 in pixels, one a line", lines=3, elem_id="boxes")
            with gr.Column():
                said = gr.Chatbot(label="Conversation", elem_id="said")
                question = gr.Textbox(label="Question", elem_id="question")
                with gr.Row():
                    ask = gr.Button("Ask", variant="primary", elem_id="ask")
                    forget = gr.Button("Begin anew", elem_id="forget")
                seen = gr.Image(
                    label="The picture as the model sees it", elem_id="seen", interactive=False, format="png"
                )

        def answer(path: str | None, text: str, asked: str, before: Talk) -> tuple[Any, ...]:
            try:
                return "", *reply(answerer, path, text, asked, before)
            except UserError as error:
                raise gr.Error(str(error), print_exception=False) from error

        file.change(show, file, [area, boxes, talk, said, seen], api_visibility="private")
        for event in (ask.click, question.submit):
            event(answer, [file, boxes, question, talk], [question, said, seen, talk], api_visibility="private")
        forget.click(lambda: (Talk(), [], None), None, [talk, said, seen], api_visibility="private")
    return page


def show(path: str | None) -> tuple[Any, ...]:
    """A new picture: what the browser draws on, no boxes, nothing said."""
    nothing = ("", Talk(), [], None)
    if path is None:
        return None, *nothing
    try:
        picture = open_picture(Path(path))
    except UserError as error:
        raise gr.Error(f"{Path(path).name}: not a picture", print_exception=False) from error
    small, packed = picture.copy(), io.BytesIO()
    small.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    small.save(packed, "JPEG", quality=90)
    address = "data:image/jpeg;base64," + base64.b64encode(packed.getvalue()).decode()
    return {"picture": address, "width": picture.width, "height": picture.height}, *nothing


def reply(answerer: Answerer, path: str | None, text: str, asked: str, before: Talk) -> tuple[Any, ...]:
    """The conversation with one more turn, the picture as the model saw it, and what to remember.

    Raises:
        UserError: there is no picture, or a box or the question is wrong.
    """
    if path is None:
        raise UserError("choose a picture first")
    # With other boxes the numbers mean other regions, so what was said before is not shown to the model.
    turns = list(before.turns) if before.about == (path, text) else []
    conversation = Conversation([open_picture(Path(path))], boxes_of(text), answerer.trained.draws_boxes, turns)
    conversation.ask(answerer, asked)
    return messages(turns), conversation.seen()[0], Talk((path, text), turns)


def boxes_of(text: str) -> list[Box]:
    """The boxes of the text field, one a line."""
    return [parse_box(line.strip()) for line in text.splitlines() if line.strip()]


def messages(turns: list[Turn]) -> list[dict[str, str]]:
    """Turns as gradio's chat shows them."""
    both = ((("user", turn.question), ("assistant", turn.answer)) for turn in turns)
    return [{"role": role, "content": content} for pair in both for role, content in pair]
