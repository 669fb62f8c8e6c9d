"""The linear probe: what is planted is found, what is shuffled is not, and the sample's geometry is in its pixels."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest
import torch
from PIL import ImageColor

from tests.conftest import SMOKE_YAML
from theworld.commands.probe import command
from theworld.config.schema import ProjectorConfig
from theworld.data.samples.boxes import COLOURS
from theworld.model.check_model import PROJECTOR_MODES
from theworld.probe.linear_reader import read_linearly
from theworld.probe.probe_latents import CONTROL, Line, read_all, read_one
from theworld.probe.region_pairs import TASKS, choose_pair, region_pairs, signs_of
from theworld.probe.token_sets import IN_PLACE, MIXED, readings
from theworld.synthetic import describe

SAMPLES, HELD_OUT = 600, 150


def lines_of(latents: torch.Tensor, truths: torch.Tensor) -> dict[tuple[str, str], Line]:
    """All readings of planted latents (B, 16, 8, 8) with plain grey pictures."""
    pixels = torch.full((len(latents), 3, 64, 64), 127, dtype=torch.uint8)
    ways = readings(latents, pixels, ProjectorConfig(patch=2), seed=0)
    held_out = len(latents) // 4
    return {(line.source, line.way): line for line in read_all(ways, truths, held_out, seed=0)}


def test_the_reader_is_the_same_over_features_and_over_pictures() -> None:
    draw = torch.Generator().manual_seed(0)
    features = torch.randn(200, 30, generator=draw, dtype=torch.float64)
    truths = features[:, :2] + 0.2 * torch.randn(200, 2, generator=draw, dtype=torch.float64) > 0.1
    said = read_linearly(features[:150], truths[:150], features[150:])
    assert (said == truths[150:]).double().mean() > 0.8
    widened = torch.cat([features, torch.zeros(200, 300, dtype=torch.float64)], dim=1)
    assert torch.equal(said, read_linearly(widened[:150], truths[:150], widened[150:]))


def test_a_place_is_read_where_tokens_keep_it_and_not_where_they_are_mixed() -> None:
    draw = torch.Generator().manual_seed(1)
    truths = torch.rand(400, len(TASKS), generator=draw) > 0.5
    latents = torch.zeros(400, 16, 8, 8)
    for number, is_left in enumerate(truths[:, 0]):
        row, column = torch.randint(0, 4, (2,), generator=draw).tolist()
        latents[number, 3, 2 * row, column + (0 if is_left else 4)] = 1.0
    lines = lines_of(latents, truths)
    for mode in ("spatial", "channel", "patch", "pool"):
        assert lines[mode, IN_PLACE].tasks["left"].accuracy == 100, mode
    for mode, accuracy in (("spatial", 60), ("pool", 60)):
        assert lines[mode, MIXED].tasks["left"].accuracy < accuracy, mode
    assert lines["channel", MIXED].tasks["left"].accuracy == 100, "a token per channel has the places as its features"
    assert lines[CONTROL, IN_PLACE].tasks["left"].low < lines[CONTROL, IN_PLACE].tasks["left"].blind_floor
    assert lines["pixels", IN_PLACE].tasks["left"].accuracy < 60, "grey pictures tell nothing"


def test_truths_are_the_scenes() -> None:
    truths = []
    for index, pair in zip(range(60), region_pairs(5, 96), strict=False):
        truths.append(pair.truths)
        scene = describe(5, index, 96).scene
        chosen = choose_pair(scene, Random(f"5/{index}/probe"))
        if chosen is None or index >= 20:
            continue
        (left, top, right, bottom), other = chosen[0].box, chosen[1].box
        signs = signs_of(*chosen, scene)
        assert (signs["left"] > 0) == (left + right < other[0] + other[2])
        assert (signs["nearer"] > 0) == (chosen[0].thing.depth < chosen[1].thing.depth)
        assert (signs["bigger"] > 0) == (right - left > other[2] - other[0]) == (bottom - top > other[3] - other[1])
    for task in TASKS:
        assert 15 <= sum(truth[task] for truth in truths) <= 45, "either region is as likely to be the first"


def test_the_picture_has_both_boxes() -> None:
    pair = next(region_pairs(5, 96))
    assert max(pair.picture.shape) <= 96
    colours = {tuple(pixel) for pixel in pair.picture.reshape(-1, 3).tolist()}
    assert {ImageColor.getrgb(COLOURS[0]), ImageColor.getrgb(COLOURS[1])} <= colours
    assert ImageColor.getrgb(COLOURS[2]) not in colours


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], dict]:
    folder = tmp_path_factory.mktemp("probe")
    options = ["--samples", str(SAMPLES), "--json", str(folder / "probe.json"), "--picture", str(folder / "probe.svg")]
    assert command([SMOKE_YAML, *options]) == 0
    picture = (folder / "probe.svg").read_text()
    assert picture.startswith("<svg")
    assert all(f"{mode}, {way}" in picture for mode in PROJECTOR_MODES for way in (IN_PLACE, MIXED))
    content = json.loads((folder / "probe.json").read_text())
    assert (content["trained_on"], content["held_out"]) == (SAMPLES - HELD_OUT, HELD_OUT)
    return {(line["source"], line["way"]): line for line in content["lines"]}


@pytest.mark.slow
def test_left_is_in_pixels_and_latents_and_shuffled_answers_are_not_learned(probed: dict) -> None:
    for reading in (("pixels", IN_PLACE), ("random", IN_PLACE), ("patch", MIXED), ("resampler", MIXED)):
        left = probed[reading]["tasks"]["left"]
        assert left["low"] > left["blind_floor"], reading
    for figure in (*probed[CONTROL, IN_PLACE]["tasks"].values(), *probed["pixels", MIXED]["tasks"].values()):
        assert figure["low"] < figure["blind_floor"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [18, 19, 20])
def test_left_is_above_the_floor_for_other_seeds(seed: int, tmp_path: Path) -> None:
    """The category and the readings were named before these seeds were drawn; the VAE is the tiny one."""
    file = tmp_path / "probe.json"
    assert command([SMOKE_YAML, "--samples", str(SAMPLES), "--seed", str(seed), "--json", str(file)]) == 0
    lines = {(line["source"], line["way"]): line["tasks"]["left"] for line in json.loads(file.read_text())["lines"]}
    for reading in (("patch", MIXED), ("pixels", IN_PLACE)):
        assert lines[reading]["low"] > lines[reading]["blind_floor"], reading
    assert lines[CONTROL, IN_PLACE]["low"] < lines[CONTROL, IN_PLACE]["blind_floor"]


@pytest.mark.slow
def test_three_modes_hold_the_same_numbers(probed: dict) -> None:
    """One token per position, channel or patch is a matter of order, which a linear reader of all does not mind."""
    same = [probed[mode, IN_PLACE]["tasks"] for mode in ("spatial", "channel", "patch")]
    assert same[0] == same[1] == same[2]
    shapes = {mode: (probed[mode, IN_PLACE]["tokens"], probed[mode, IN_PLACE]["width"]) for mode in PROJECTOR_MODES}
    expected = {"spatial": (64, 16), "channel": (16, 64), "patch": (16, 64), "pool": (16, 32), "resampler": (64, 512)}
    assert shapes == expected


def test_the_same_seed_gives_the_same_figures_and_another_one_others(tmp_path: Path) -> None:
    found = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        assert command([SMOKE_YAML, "--samples", "40", "--seed", str(seed), "--json", str(tmp_path / name)]) == 0
        found.append(json.loads((tmp_path / name).read_text())["lines"])
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--samples", "39"], "error: --samples 39: expected at least 40"),
        (["model.projector.patch=3"], "error: model.projector.patch is 3; expected a divisor of 8"),
        (["model.projector.mode=spatial", "model.projector.patch=3"], "modes patch and pool are probed as well"),
        (["model.enable_world=false"], "error: model.enable_world: false"),
        (["model.cosmos=/nowhere"], "error: model.cosmos: "),
        (["model.world_image_size=32"], "error: model.world_image_size is 32; expected 64 to 2048"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command([SMOKE_YAML, *arguments]) == 2
    shown = capsys.readouterr().err
    assert line in shown
    assert shown.count("\n") == 1


def test_a_line_is_scored_on_what_was_held_out() -> None:
    """What the fitted part says of the answer is its contrary in the held-out part; what tells it there is no part of
    the fitted one."""
    truths = torch.arange(100) % 2 == 0
    latents = torch.zeros(100, 16, 8, 8)
    latents[:75, 0, 0, 0] = truths[:75].float()
    latents[75:, 0, 0, 0] = 1 - truths[75:].float()
    latents[75:, 1, 0, 0] = 20 * truths[75:].float()
    truths = truths[:, None].expand(-1, len(TASKS))
    reading = next(readings(latents, torch.zeros(100, 3, 64, 64, dtype=torch.uint8), ProjectorConfig(patch=2), 0))
    line = read_one(reading, truths, 25)
    assert [figure.right for figure in line.tasks.values()] == [0] * len(TASKS)
    assert [figure.questions for figure in line.tasks.values()] == [25] * len(TASKS)
