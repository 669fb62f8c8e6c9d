"""What do world tokens know? python recipes/probe.py [YAML] [key=value ...] [--samples N] [--json FILE] [--picture SVG]

Renders pictures of the built-in sample with two regions drawn, makes their latents with the VAE of the YAML
(model.cosmos, model.world_image_size) and asks a linear reader, without any language model, whether Region [0] is left
of, nearer than and bigger than Region [1]: for the tokens of each projector mode, for plain pixels and for random
filters, in their places and mixed (the mean of all tokens). Prints the share of held-out pictures that it tells right,
with a 95 % interval and the blind floor (the better constant answer); the last line is the same reader where the
answers are shuffled. On a CPU minutes with builtin:tiny; a real VAE is quicker at a smaller model.world_image_size.
Exit code 0: done, 2: bad input.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from theworld import cli
from theworld.config.load import load_config
from theworld.errors import EXIT_DONE
from theworld.files import write_json

if TYPE_CHECKING:
    from theworld.probe.probe_latents import Probed


def main(argv: list[str]) -> int:
    parser = cli.Parser("recipes/probe.py", __doc__, sections=("model",))
    parser.add_argument("--samples", metavar="N", type=int, default=2000, help="pictures (default %(default)s)")
    parser.add_argument("--seed", metavar="S", type=int, default=17, help="same seed, same table (default %(default)s)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures")
    parser.add_argument("--picture", metavar="SVG", type=Path, help="draw them")
    given = parser.parse(argv)
    config = load_config(given.settings)
    from theworld.pages.page_file import write_page
    from theworld.probe.probe_latents import probe_latents, show_probe

    probed = probe_latents(config.model, given.samples, given.seed)
    cli.say(show_probe(probed))
    if given.json is not None:
        write_json(given.json, probed.as_json(), indent=1)
    if given.picture is not None:
        write_page(given.picture, draw(probed))
    return EXIT_DONE


def draw(probed: Probed) -> str:
    """The table as SVG."""
    from theworld.pages.drawing import Dots, interval_figure
    from theworld.probe.region_pairs import TASKS

    names = [f"{line.source}, {line.way}" for line in probed.lines]
    dots = []
    for task in TASKS:
        figures = [line.tasks[task] for line in probed.lines]
        values = [(figure.accuracy, figure.low, figure.high) for figure in figures]
        dots.append(Dots(task, values, floor=figures[0].blind_floor))
    return interval_figure(names, dots, "right on held-out pictures, %")


command = partial(cli.run, main)
