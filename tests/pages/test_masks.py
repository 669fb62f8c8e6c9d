"""Masks that a data set keeps, as outlines on the page of its samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.common.by import By

from tests.conftest import smoke_config
from theworld.commands.preview import main
from theworld.data.entries.rle_runs import read_counts
from theworld.data.shards.convert import convert
from theworld.pages.mask_outline import GRID, outline, path_round, sample_mask
from theworld.pages.pick_samples import StoredSamples
from theworld.pages.shown_sample import show_sample


@pytest.fixture(scope="module")
def with_masks(raw_sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in sample converted with its masks."""
    out = tmp_path_factory.mktemp("masks") / "mds"
    convert(smoke_config(raw_sample, out, "convert.keep_masks=true").convert)
    return out


def coded(mask: np.ndarray) -> dict[str, Any]:
    """A mask as the data have it."""
    counts = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
    # The library's stubs promise str, the library gives bytes.
    return {"size": list(mask.shape), "counts": str(counts, "ascii") if isinstance(counts, bytes) else counts}


def filled(path: str, down: int, across: int) -> np.ndarray:
    """The cells that a path of horizontal and vertical lines goes round: each line down changes inside and outside."""
    crossings = np.zeros((down, across + 1), dtype=int)
    for piece in path.split("M")[1:]:
        if "v" in piece:
            start, length = piece.split("v")
            x, y = map(int, start.split())
            crossings[y : y + int(length), x] += 1
    return (np.cumsum(crossings, axis=1)[:, :-1] % 2).astype(bool)


@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (GRID, 31), (700, 1024), (1024, 3)])
def test_an_outline_goes_round_the_masks_own_pixels(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(5)
    coarse = rng.random((4, 5)) < 0.5
    rows, columns = (np.arange(side) * parts // side for side, parts in zip(shape, coarse.shape, strict=True))
    mask = coarse[rows][:, columns]
    drawn = outline(coded(mask))
    assert drawn is not None
    path, across, down = drawn
    assert max(across, down) <= GRID
    cells = filled(path, down, across)
    places = [((np.arange(n) + 0.5) * side / n).astype(int) for n, side in zip(cells.shape, shape, strict=True)]
    assert np.array_equal(cells, mask[places[0]][:, places[1]])


def test_runs_are_read_as_cocos_own_reader_does(raw_sample: Path) -> None:
    entries = json.loads((raw_sample / "openspatial.json").read_text())
    masks = [mask for entry in entries for mask in entry["rle"]]
    assert len(masks) > 50
    for mask in masks:
        whole = coco_mask.decode(mask).astype(bool)
        runs = read_counts(mask["counts"])
        flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
        assert np.array_equal(flat.reshape(whole.shape, order="F"), whole)
        assert np.array_equal(sample_mask(mask), sample_mask({"size": mask["size"], "counts": runs}))


def test_a_square_is_four_lines() -> None:
    cells = np.zeros((4, 5), dtype=bool)
    cells[1:3, 2:4] = True
    assert path_round(cells) == "M2 1h2M2 3h2M2 1v2M4 1v2"


GOOD = coded(np.eye(6, dtype=bool))


@pytest.mark.parametrize(
    "damaged",
    [
        None,
        [],
        {},
        {"size": [6, 6]},
        GOOD | {"size": [6, 7]},
        GOOD | {"size": [10**12, 10**12]},
        GOOD | {"size": ["<script>", 6]},
        GOOD | {"size": [-6, -6]},
        GOOD | {"counts": GOOD["counts"][:-1]},
        GOOD | {"counts": "\u20ac" * 9},
        GOOD | {"counts": "o" * 1_000_000},
        GOOD | {"counts": ""},
        GOOD | {"counts": [40, -4]},
        GOOD | {"counts": {"a": 1}},
        {"size": [10**9, 10**9], "counts": "9"},
    ],
    ids=lambda damaged: str(damaged)[:40],
)
def test_a_damaged_mask_is_none_at_once(damaged: Any) -> None:
    assert outline(damaged) is None


def test_a_mask_of_any_size_costs_no_memory() -> None:
    assert outline({"size": [10**6, 10**6], "counts": [0, 10**12]}) is not None


def test_the_page_draws_them_where_the_data_set_keeps_them(with_masks: Path, mds_sample: Path, tmp_path: Path) -> None:
    pages = []
    for folder in (with_masks, mds_sample):
        assert main([str(folder), "--samples", "100", "--html", str(tmp_path / "page.html")]) == 0
        pages.append((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert pages[0].count('class="mask"') == pages[0].count("<rect tabindex") > 26
    assert 'id="masks"' in pages[0]
    assert 'class="mask"' not in pages[1]
    assert 'id="masks"' not in pages[1]


def test_a_damaged_mask_is_said_and_the_rest_is_shown(with_masks: Path) -> None:
    sample = dict(StoredSamples(with_masks)[0])
    whole = show_sample(sample, "", None)
    sample["masks"] = [{"size": [2, 2], "counts": "<script>"}, *sample["masks"][1:]]
    shown = show_sample(sample, "", None)
    assert "mask 0: damaged, not drawn" in shown.warnings
    assert shown.regions[0].mask == ""
    assert shown.regions[1:] == whole.regions[1:]
    assert all(region.mask for region in whole.regions)


@pytest.mark.slow
def test_in_a_browser_they_lie_in_their_boxes_and_are_switched(
    with_masks: Path, tmp_path: Path, browser: Chrome
) -> None:
    assert main([str(with_masks), "--samples", "3", "--html", str(tmp_path / "page.html")]) == 0
    browser.get((tmp_path / "page.html").as_uri())
    sample = browser.find_element(By.CSS_SELECTOR, ".sample")
    for box in sample.find_elements(By.CSS_SELECTOR, "rect"):
        number = box.get_attribute("data-regions")
        mask = sample.find_element(By.CSS_SELECTOR, f"path[data-regions='{number}']")
        inner, outer = mask.rect, box.rect
        assert inner["x"] > outer["x"] - 6
        assert inner["y"] > outer["y"] - 6
        assert inner["x"] + inner["width"] < outer["x"] + outer["width"] + 6
        assert inner["y"] + inner["height"] < outer["y"] + outer["height"] + 6
    mask = browser.find_element(By.CSS_SELECTOR, ".mask")
    assert mask.is_displayed()
    ActionChains(browser).send_keys("m").perform()
    assert not mask.is_displayed()
    browser.find_element(By.CSS_SELECTOR, "#masks").click()
    assert mask.is_displayed()
