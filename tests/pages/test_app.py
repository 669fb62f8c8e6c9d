"""The page of recipes/app.py in a real browser: a picture, boxes by mouse, a question, an answer."""

from __future__ import annotations

import io
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from theworld.data.samples.boxes import draw_regions
from theworld.data.samples.regions import unique_regions
from theworld.errors import UserError
from theworld.inference.page import boxes_of

pytestmark = pytest.mark.slow
WAIT_S = 120
CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page of the tiny model, served by the command itself."""
    command = [sys.executable, "recipes/app.py", "builtin:tiny", "--port", "0", "--max-new-tokens", "4"]
    errors = tmp_path_factory.mktemp("app") / "stderr"
    with errors.open("wb") as stderr:
        served = subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=stderr, text=True)
    assert served.stdout is not None
    said = served.stdout.readline()
    assert said.startswith("http://127.0.0.1:"), errors.read_text()
    yield said.split()[0]
    served.terminate()
    served.wait()


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "picture.png"
    Image.new("RGB", (640, 480), (10, 90, 120)).save(path)
    return path


def until(browser: Chrome, condition: Callable[[Chrome], Any]) -> Any:
    """Wait for it; what gradio draws anew while it is looked at is looked at again."""
    return WebDriverWait(browser, WAIT_S, ignored_exceptions=[StaleElementReferenceException]).until(condition)


def value(browser: Chrome, name: str) -> str:
    return browser.find_element(By.CSS_SELECTOR, f"#{name} textarea").get_property("value")  # type: ignore[return-value]


def answers(browser: Chrome) -> list[str]:
    return [element.text for element in browser.find_elements(By.CSS_SELECTOR, "#said .bot.message")]


def ask(browser: Chrome, question: str, count: int) -> None:
    """Type a question, press the button, and wait until there are ``count`` answers."""
    field = browser.find_element(By.CSS_SELECTOR, "#question textarea")
    field.send_keys(question)
    browser.find_element(By.ID, "ask").click()
    until(browser, lambda there: len(answers(there)) == count and not value(there, "question"))


def drag(browser: Chrome, box: tuple[int, int, int, int]) -> None:
    """Draw a box with the mouse, in pixels of the 640 x 480 picture."""
    canvas = browser.find_element(By.CSS_SELECTOR, "#area canvas")
    browser.execute_script("arguments[0].scrollIntoView()", canvas)
    scale = canvas.rect["width"] / 640
    x1, y1, x2, y2 = (round(side * scale) for side in box)
    from_middle = (x1 - round(canvas.rect["width"] / 2), y1 - round(canvas.rect["height"] / 2))
    mouse = ActionChains(browser).move_to_element_with_offset(canvas, *from_middle).click_and_hold()
    mouse.move_by_offset(x2 - x1, y2 - y1).release().perform()


def test_boxes_by_mouse_and_a_conversation(browser: Chrome, address: str, picture: Path, tmp_path: Path) -> None:
    browser.get(address)
    until(browser, lambda there: there.find_elements(By.CSS_SELECTOR, "#picture input[type=file]"))
    browser.find_element(By.CSS_SELECTOR, "#picture input[type=file]").send_keys(str(picture))
    until(browser, lambda there: not there.find_element(By.CSS_SELECTOR, "#area canvas").get_property("hidden"))
    drawn = [(64, 48, 320, 240), (400, 300, 600, 450)]
    for box in drawn:
        drag(browser, box)
    until(browser, lambda there: value(there, "boxes").count(",") == 6)
    boxes = boxes_of(value(browser, "boxes"))
    assert len(boxes) == 2
    for box, wanted in zip(boxes, drawn, strict=True):
        assert box == pytest.approx(wanted, abs=3)
    for left, top, _, _ in boxes:
        look = (
            "return [...document.querySelector('#area canvas').getContext('2d').getImageData(...arguments, 1, 1).data]"
        )
        red, _, blue, _ = browser.execute_script(look, left + 40, top)
        assert red > 150 > 80 > blue, "the side of the box is not drawn"
    ask(browser, "Is <mask> above <mask>?", 1)
    assert "Is Region [0] above Region [1]?" in browser.find_element(By.ID, "said").text
    source = until(browser, lambda there: there.find_element(By.CSS_SELECTOR, "#seen img").get_attribute("src"))
    assert source is not None
    with urllib.request.urlopen(source) as response:
        seen = Image.open(io.BytesIO(response.read())).convert("RGB")
    assert seen.tobytes() == draw_regions(Image.open(picture), unique_regions(boxes)).tobytes()
    ask(browser, "And to the left?", 2)
    browser.save_screenshot(str(tmp_path / "app.png"))
    # What is wrong is said on the page, and the conversation stays.
    browser.find_element(By.CSS_SELECTOR, "#question textarea").send_keys("How wide is Region [2]?")
    browser.find_element(By.ID, "ask").click()
    until(
        browser, lambda there: "names Region [2], but there are 2 boxes" in there.find_element(By.TAG_NAME, "body").text
    )
    assert len(answers(browser)) == 2
    severe = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert not [entry for entry in severe if "canvas" in entry["message"] or "Uncaught" in entry["message"]]


def test_boxes_as_text() -> None:
    assert boxes_of("1,2,3,4\n\n 5,6,7,8 \n") == [(1, 2, 3, 4), (5, 6, 7, 8)]
    with pytest.raises(UserError, match="expected x1,y1,x2,y2 in pixels"):
        boxes_of("1,2,3")
