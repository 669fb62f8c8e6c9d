"""Ask a model in the browser: python recipes/app.py RUN_OR_REPO [--port N]

RUN_OR_REPO is what recipes/ask.py takes. The page has a picture, on which boxes are drawn with the mouse, and a
conversation; it shows the picture as the model sees it. It needs pip install -c constraints.txt -e '.[app]'.
The page can be seen from this machine only; from another one take ssh -L 7860:127.0.0.1:7860. Ctrl-C ends it.
Exit code 0: ended, 2: bad input.
"""

from __future__ import annotations

import os
import tempfile
from functools import partial

from theworld import cli
from theworld.errors import EXIT_DONE, UserError

HOST = "127.0.0.1"
MAX_PICTURE = "64mb"


def main(argv: list[str]) -> int:
    parser = cli.Parser("recipes/app.py", __doc__)
    parser.add_argument("model", metavar="RUN_OR_REPO", help="the model")
    parser.add_argument("--checkpoint", metavar="NAME", help="of a run (default: the newest that is whole)")
    parser.add_argument("--world", choices=("on", "off", "zero"), default="on", help="what stands for the world tokens")
    parser.add_argument("--max-new-tokens", metavar="N", type=int, default=256, help="the longest answer")
    parser.add_argument("--port", metavar="N", type=int, default=7860, help="0: any that is free (default 7860)")
    given = parser.parse(argv)
    # gradio keeps pictures that visitors drop; its own place is one that all users of the machine share.
    with tempfile.TemporaryDirectory(prefix="theworld-app-") as private:
        os.environ.update(GRADIO_TEMP_DIR=private, GRADIO_ANALYTICS_ENABLED="False")
        try:
            from gradio.themes import Default
        except ImportError as error:
            raise UserError("recipes/app.py needs gradio: pip install -c constraints.txt -e '.[app]'") from error
        from theworld.inference.answering import Answerer
        from theworld.inference.load_trained import load_trained
        from theworld.inference.page import build_page

        page = build_page(Answerer(load_trained(given.model, given.checkpoint), given.max_new_tokens, given.world))
        try:
            _, address, _ = page.launch(
                server_name=HOST,
                server_port=given.port or free_port(),
                prevent_thread_lock=True,
                share=False,
                quiet=True,
                max_file_size=MAX_PICTURE,
                footer_links=[],
                theme=Default(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
            )
        except OSError as error:
            raise UserError(f"--port {given.port}: not free ({error})") from error
        cli.say(f"{address} is open; Ctrl-C ends it")
        page.block_thread()
    return EXIT_DONE


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    import socket

    with socket.socket() as asked:
        asked.bind((HOST, 0))
        return asked.getsockname()[1]


command = partial(cli.run, main)
