"""The page of a data set's samples: which are shown, what is said of them, and what a browser makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.common.by import By

from tests.convert.raw_folder import Raw, entry, name
from tests.convert.shapes import Set
from theworld.commands.preview import encoder_of, main
from theworld.config.schema import Config
from theworld.data.batches.sample_encoder import SampleEncoder
from theworld.data.samples.decode import DecodedSample, decode_sample
from theworld.data.shards.convert import convert
from theworld.errors import UserError
from theworld.model.build import load_processor
from theworld.pages.pick_samples import StoredSamples
from theworld.pages.preview_page import is_of_kind
from theworld.pages.shown_sample import named, show_sample

EVIL = "<script>document.title = 'owned'</script><img src=x onerror=\"document.title='owned'\">{{ 7 * 7 }}"
SMOKE = "yamls/smoke.yaml"


def turns(*texts: str) -> list[dict[str, str]]:
    return [{"from": "gpt" if place % 2 else "human", "value": text} for place, text in enumerate(texts)]


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Raw:
    """Two generations; among the entries one with markup, one whose answer names a region that its question does not,
    one box outside, one too long, and one that is rejected."""
    raw = Raw(tmp_path_factory.mktemp("raw"), 0)
    entries = [entry(number) for number in range(12)]
    entries[1] |= {"conversations": turns(f"<image>\nWhat of <mask> <depth>? {EVIL}", EVIL)}
    entries[2] |= {"conversations": turns("Is <mask> <depth> by <mask>?", "Region [5] is.", "And?", "No.")}
    entries[4] |= {"bbox": [[4000.0, 1.0, 4020.0, 9.0]]}
    entries[5] |= {"conversations": turns("Is <mask> by <mask>?", "Region [1] is.", "Why? " * 400, "Because.")}
    entries[7] |= {"bbox": []}
    raw.write_json(entries)
    raw.add_images(*range(8))
    convert(raw.config())
    raw.add_images(*range(8, 12))
    convert(raw.config())
    return raw


@pytest.fixture(scope="module")
def encoder() -> SampleEncoder:
    return encoder_of(SMOKE)[0]


def page_of(raw: Raw, folder: Path, *arguments: str) -> str:
    path = folder / "page.html"
    assert main([str(raw.out), "--html", str(path), *arguments]) == 0
    return path.read_text(encoding="utf-8")


def ids_on(page: str) -> set[str]:
    return {name(number) for number in range(12) if f'aria-label="sample {name(number)}"' in page}


def test_a_sample_by_chance_is_the_same_for_a_seed_and_comes_from_all(raw: Raw, tmp_path: Path) -> None:
    pages = [page_of(raw, tmp_path, "--samples", "5", "--seed", str(seed)) for seed in (1, 1, 2)]
    assert pages[0] == pages[1] != pages[2]
    assert len(ids_on(pages[0])) == 5
    everything = page_of(raw, tmp_path, "--samples", "100")
    assert len(ids_on(everything)) == 11
    assert "gen-00000" in everything
    assert "gen-00001" in everything


def test_some_ids(raw: Raw, tmp_path: Path) -> None:
    assert ids_on(page_of(raw, tmp_path, "--id", name(9), "--id", name(3))) == {name(9), name(3)}
    with pytest.raises(UserError, match=f"--id {name(7)}: not in"):
        page_of(raw, tmp_path, "--id", name(7))


def test_only_odd_ones(raw: Raw, tmp_path: Path) -> None:
    irregular = page_of(raw, tmp_path, "--where", "irregular")
    assert ids_on(irregular) == {name(2), name(4)}
    assert "the answer cites a region that its question does not name" in irregular
    assert "box 0: lies outside the picture" in irregular
    assert ids_on(page_of(raw, tmp_path, "--where", "truncated", "--yaml", SMOKE)) == {name(5)}
    rejected = page_of(raw, tmp_path, "--where", "rejected")
    assert ids_on(rejected) == set()
    assert f"<td>{name(7)}</td>" in rejected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--where", "truncated"), "give the model with --yaml"),
        (("--samples", "0"), "expected 1 to 2000"),
        (("--where", "rejected", "--id", "a"), "give one of them"),
    ],
)
def test_what_cannot_be_is_said(raw: Raw, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        page_of(raw, tmp_path, *arguments)


def test_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such folder"):
        main([str(tmp_path / "none")])
    with pytest.raises(UserError, match=r"no index\.json"):
        main([str(tmp_path)])


def test_what_is_trained_on_is_what_the_trainer_trains_on(raw: Raw, encoder: SampleEncoder) -> None:
    """Tokens and states against the labels, for every sample; without a model nothing is said of either."""
    stored = StoredSamples(raw.out)
    for place in range(len(stored)):
        shown = show_sample(stored[place], "", encoder)
        labels = encoder(decoded(stored, place)).labels
        assert shown.tokens is not None
        assert shown.tokens.trained == sum(label != -100 for label in labels)
        assert shown.tokens.text + shown.tokens.image + shown.tokens.world == len(labels)
        assert any(turn.state == "trained" for turn in shown.turns) == (shown.tokens.trained > 0)
        assert show_sample(stored[place], "", None).tokens is None


def decoded(stored: StoredSamples, place: int) -> DecodedSample:
    return decode_sample(stored[place])


def test_a_region_that_nothing_draws_is_said(raw: Raw) -> None:
    sample = dict(StoredSamples(raw.out)[0])
    sample["conversations"] = turns("Is Region [3] wide?", "Yes.")
    assert "Region [3] is named, but has no box" in show_sample(sample, "", None).warnings
    assert named("Region [1] of Region [" + "9" * 5000 + "]") == [1]


def test_a_first_turn_that_is_too_long_is_cut_too(raw: Raw, encoder: SampleEncoder) -> None:
    """Nothing of the sample is trained on then, and it is found among the truncated ones."""
    sample = dict(StoredSamples(raw.out)[0])
    sample["conversations"] = turns("Why? " * 400, "Because.")
    shown = show_sample(sample, "", encoder)
    assert shown.truncated
    assert [turn.state for turn in shown.turns] == ["masked"]
    assert is_of_kind(sample, "truncated", encoder)


def test_what_a_search_finds_is_what_is_shown_so(raw: Raw, encoder: SampleEncoder) -> None:
    stored = StoredSamples(raw.out)
    for place in range(len(stored)):
        shown = show_sample(stored[place], "", encoder)
        assert is_of_kind(stored[place], "truncated", encoder) == shown.truncated
        assert is_of_kind(stored[place], "irregular", encoder) == shown.irregular


def test_tokens_without_a_world(raw: Raw) -> None:
    config = Config()
    config.model.gemma, config.model.enable_world, config.model.freeze.language = "builtin:tiny", False, False
    shown = show_sample(StoredSamples(raw.out)[0], "", SampleEncoder(load_processor(config.model), 1024))
    assert shown.tokens is not None
    assert shown.tokens.world == 0
    assert shown.tokens.image > 0


@pytest.mark.slow
def test_in_a_browser(raw: Raw, tmp_path: Path, browser: Chrome) -> None:
    """Text from the data is text; sentences and regions light each other up; the keyboard goes everywhere."""
    page_of(raw, tmp_path, "--samples", "100", "--yaml", SMOKE)
    browser.get("about:blank")
    browser.get_log("browser")  # what pages before have left
    browser.get((tmp_path / "page.html").as_uri())
    assert browser.title.endswith("11 samples")
    assert "document.title" in browser.find_element(By.TAG_NAME, "body").text
    assert "{{ 7 * 7 }}" in browser.find_element(By.TAG_NAME, "body").text
    five = browser.find_element(By.CSS_SELECTOR, f"[aria-label='sample {name(5)}']")
    sentence = five.find_element(By.CSS_SELECTOR, ".answer .names")
    region, other = (five.find_element(By.CSS_SELECTOR, f"rect[data-regions='{number}']") for number in (1, 0))
    ActionChains(browser).scroll_to_element(sentence).move_to_element(sentence).perform()
    assert "lit" in (region.get_attribute("class") or "")
    assert "lit" not in (other.get_attribute("class") or "")
    browser.execute_script("arguments[0].focus()", region)
    assert "lit" in (sentence.get_attribute("class") or "")
    body = ActionChains(browser)
    browser.execute_script("document.activeElement.blur()")
    body.send_keys("jjk").perform()
    assert browser.switch_to.active_element.get_attribute("id") == "sample-1"
    assert not [one for one in browser.get_log("browser") if one["level"] == "SEVERE"]
    # The page's policy refuses what its author did not write, even if something slipped in.
    browser.execute_script(
        "const bad = document.createElement('script'); bad.textContent = 'document.title = \"owned\"';"
        "document.body.append(bad)"
    )
    assert browser.title.endswith("11 samples")


@pytest.mark.slow
def test_five_hundred_samples(tmp_path: Path, browser: Chrome) -> None:
    raw = Raw(tmp_path / "raw", 500)
    raw.add_images(*range(500))
    convert(raw.config())
    page_of(raw, tmp_path, "--samples", "500")
    browser.get((tmp_path / "page.html").as_uri())
    assert len(browser.find_elements(By.CSS_SELECTOR, ".sample")) == 500
    browser.execute_script("document.querySelector('#sample-500').scrollIntoView()")
    last = browser.find_element(By.CSS_SELECTOR, "#sample-500 img")
    browser.execute_async_script("const done = arguments[1]; arguments[0].decode().then(done)", last)
    assert last.get_property("naturalWidth") == 40 + int((last.get_attribute("alt") or "").split()[2], 16) % 7


def test_several_pictures_and_none(tmp_path: Path, encoder: SampleEncoder) -> None:
    entries = [
        {
            "id": "two",
            "images": ["0.png", "1.png"],
            "bbox": [[], [[2, 3, 9, 9]]],
            "conversations": turns("<mask>?", "A."),
        },
        {"id": "text", "conversations": turns("Why?", "Because.")},
    ]
    made = Set(tmp_path, entries, "0.png", "1.png")
    made.convert()
    two, text = (show_sample(sample, "gen-00000", encoder) for sample in made.samples())
    assert [(one.width, one.height, len(one.regions)) for one in two.pictures] == [(80, 60, 0), (80, 60, 1)]
    assert two.tokens is not None
    assert text.tokens is not None
    assert (text.pictures, text.regions, text.tokens.image, text.tokens.world) == ((), (), 0, 0)
    assert two.tokens.image == 2 * encoder.processor.image_seq_length
    assert main([str(made.out), "--html", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg;base64,") == 2
    assert "80 x 60 pixels, 80 x 60 pixels, 1 regions" in page
    assert "text alone, 0 regions" in page
