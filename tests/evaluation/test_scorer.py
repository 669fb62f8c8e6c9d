"""Each rule of the scorer on sentences of our own; none of the benchmark's."""

from __future__ import annotations

import pytest

from theworld.errors import UserError
from theworld.evaluation.lengths import digits_for_words, find_lengths
from theworld.evaluation.questions import Question
from theworld.evaluation.score import reference_value, score

RIGHT, WRONG, UNDECIDED = True, False, None

SIZE = {"width_data": "How wide is Region [0]?", "height_data": "How tall is Region [0]?"}
PAIR = "How do Region [0] and Region [1] compare?"


def question(category: str, reference: str) -> Question:
    return Question("made-up", SIZE.get(category, PAIR), reference, category)


@pytest.mark.parametrize(
    ("text", "metres"),
    [
        ("5 feet 6 inches", 1.6764),
        ("5'6\"", 1.6764),
        ("five feet, six inches", 1.6764),
        ("1,020 mm", 1.02),
        ("15-20 cm", 0.175),
        ("between 2 and 3 metres", 2.5),
        ("1.5 to 2 m", 1.75),
        ("10 inches to 1 foot", 0.2794),
        ("one and a half meters", 1.5),
        ("one point two meters", 1.2),
        ("half a meter", 0.5),
        ("a few inches", 0.0762),
        ("twenty-five centimeters", 0.25),
        ("1 1/2 feet", 0.4572),
        ("5½ ft", 1.6764),
        ("1,5 m", 1.5),
        ("30 cm (about 11.8 inches)", 0.3),
        ("3\u20134 feet (0.9\u20131.2 meters)", 1.0668),
        ("170-180 cm (5'7\" - 5'11\")", 1.75),
        ("2 yards", 1.8288),
        ("12 in", 0.3048),
    ],
)
def test_a_length_in_any_unit_and_form(text: str, metres: float) -> None:
    verdict = score(question("width_data", "1 meter"), f"Region [0] is {text}.")
    assert verdict.asserted == pytest.approx(metres, rel=1e-3)


def test_in_is_a_unit_only_where_it_cannot_be_a_word() -> None:
    assert find_lengths("2 in front of it") == []
    assert digits_for_words("one hundred and twenty") != "100"


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ("2 meters", RIGHT),
        ("2.5 meters", RIGHT),
        ("1.5 meters", RIGHT),
        ("2.51 meters", WRONG),
        ("1.49 meters", WRONG),
        ("", UNDECIDED),
        ("I cannot tell from this picture.", UNDECIDED),
        ("How tall is Region [0]?", UNDECIDED),
        ("Region [0] is about 300 pixels tall.", UNDECIDED),
        ("Region [0] is 2 m tall and Region [1] is 5 m tall.", RIGHT),
        ("Region [1] is 2 m tall.", UNDECIDED),
        ("Region [0] is 2 m wide.", UNDECIDED),
        ("Region [0] is 5 m wide and 2 m high.", RIGHT),
        ("Width: 5 m\nHeight: 2 m (6.6 ft)", RIGHT),
        ("Region [0] is 2 m tall. In fact Region [0] is 4 m tall.", UNDECIDED),
        ("Region [0] is 1 m tall at first sight. Therefore, the height is 2 m.", RIGHT),
        ("Answer: 2 m\nExplanation: Region [0] is 5 m tall.", UNDECIDED),
        ("The door beside it is 5 m tall. Region [0] is 2 m tall.", RIGHT),
        ("A typical door is 5 m tall, so Region [0] is 2 m tall.", RIGHT),
        ("If Region [0] is 2 m tall, it fits.", UNDECIDED),
        ("Assuming that the door is 5 m tall, Region [0] is 2 m tall.", RIGHT),
        ("Region [0] (the lamp) stands there. The lamp is 2 m tall.", RIGHT),
        ("The lamp is 2 m tall.", RIGHT),
        ("The lamp is 5 m tall and serves as a reference.", UNDECIDED),
        ("A) 1 meter\nB) 2 meters\nC) 3 meters", UNDECIDED),
        ("A) 1 meter\nB) 2 meters\nAnswer: B) 2 meters", RIGHT),
        ("Height = 0.5 m + 1.5 m = 2 m", RIGHT),
        ("Region [0] is less than 1 meter tall.", WRONG),
        ("Region [0] is less than 5 meters tall.", UNDECIDED),
        ("Region [0] is more than 9 meters tall.", WRONG),
        ("It is **2 meters**.\nuser\nHow wide is it?\nmodel\nIt is 7 meters.", RIGHT),
        ("The lamp is our yardstick. It is 5 m tall. Region [0] is 2 m tall.", RIGHT),
        ("Region [1] is a lamp. It is 2 m tall.", UNDECIDED),
        ("Region [0] is a lamp. It is 2 m tall.", RIGHT),
        ("Height: 5 m - 3 m = 2 m", RIGHT),
        ("The person is sitting, and appears to be 5 meters tall. Region [0] is 2 m tall.", RIGHT),
    ],
)
def test_which_length_counts(answer: str, verdict: bool | None) -> None:
    assert score(question("height_data", "Region [0] is 2.0 meters tall."), answer).right is verdict


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ("The horizontal distance between Region [0] and Region [1] is 2 m.", RIGHT),
        ("They are 2 m apart.", RIGHT),
        ("The vertical distance is 2 m.", UNDECIDED),
        ("Horizontally 2 m, vertically 9 m.", RIGHT),
        ("Region [0] is 9 m tall. The gap is 2 m.", RIGHT),
        ("Region [1] is 9 m away from the kerb. Region [0] and Region [1] are 2 m apart.", RIGHT),
        ("They are separated by 200 pixels, which is about 2 m.", RIGHT),
        ("A lorry is 9 to 11 m long. Let's take 2 m.", UNDECIDED),
    ],
)
def test_which_distance_counts(answer: str, verdict: bool | None) -> None:
    asked = question("horizontal_distance_data", "They are 2.0 meters apart horizontally.")
    assert score(asked, answer).right is verdict


def test_the_error_of_a_length_is_relative_and_of_a_direction_in_hours() -> None:
    assert score(question("width_data", "2 meters"), "It is 3 meters.").error == pytest.approx(0.5)
    assert score(question("direction", "Region [1] is at 12 o'clock."), "2 o'clock").error == pytest.approx(2)


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ("Region [1] is at 12 o'clock.", RIGHT),
        ("It is at 1 o\u2019clock from Region [0].", RIGHT),
        ("at the eleven o'clock position", RIGHT),
        ("2 o'clock", WRONG),
        ("between 12 and 2 o'clock", RIGHT),
        ("11-12 o'clock", RIGHT),
        ("12:30", RIGHT),
        ("If you are at Region [0], Region [1] is at 12 o'clock.", RIGHT),
        ("Region [0] is at 6 o'clock from Region [1]. Region [1] is at 12 o'clock.", RIGHT),
        ("not at 6 o'clock, at 12 o'clock", RIGHT),
        ("12 o'clock. No, 6 o'clock.", UNDECIDED),
        ("To the right.", UNDECIDED),
        ("Region [1] is behind Region [0].", UNDECIDED),
    ],
)
def test_directions_on_the_clock(answer: str, verdict: bool | None) -> None:
    assert score(question("direction", "Region [1] is roughly at 12 o'clock from Region [0]."), answer).right is verdict


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ("Yes.", RIGHT),
        ("No.", WRONG),
        ("**Yes**, Region [0] is smaller.", RIGHT),
        ("Based on the picture, yes, it is.", RIGHT),
        ("Indeed.", RIGHT),
        ("That is false.", WRONG),
        ("It is not.", WRONG),
        ("Region [0] is smaller than Region [1].", RIGHT),
        ("Region [0] isn't smaller than Region [1].", WRONG),
        ("Region [1] is larger than Region [0].", RIGHT),
        ("Region [1] is actually the smaller one.", WRONG),
        ("Region [0] does not exceed Region [1] in size.", RIGHT),
        ("Region [0] is not as big as Region [1].", RIGHT),
        ("Region [0] is as big as Region [1].", WRONG),
        ("Both are the same size.", WRONG),
        ("It is not true that Region [0] is smaller than Region [1].", WRONG),
        ("Compared to Region [1], Region [0] has a smaller size.", RIGHT),
        ("[...] is smaller than [...].", RIGHT),
        ("[...] is smaller than [...] but not by much.", RIGHT),
        ("Yes. Region [0] is larger than Region [1].", UNDECIDED),
        ("No, Region [0] is smaller than Region [1].", UNDECIDED),
        ("Yes\nNo\n\nReasoning: Region [0] is smaller than Region [1].", RIGHT),
        ("Region [0] is larger than it seems. Answer: Yes", RIGHT),
        ("Region [0] is larger than Region [1]. Therefore, Region [0] is smaller than Region [1].", RIGHT),
        ("Answer: Yes\nReasoning: Region [0] is larger than Region [1].", UNDECIDED),
        ("I cannot say whether Region [0] is smaller than Region [1].", UNDECIDED),
        ("If Region [0] is smaller than Region [1], it fits.", UNDECIDED),
        ("Is Region [0] smaller than Region [1]?", UNDECIDED),
        ("Region [0] is thinner than Region [1].", UNDECIDED),
        ("Region [0] is to the left of Region [1].", UNDECIDED),
        ("Yes, Region [0] is smaller. Region [1] stands left of it.", RIGHT),
        ("Region [0] (the cup) is smaller than Region [1] (the table).", RIGHT),
        ("There is no Region [11] in this picture.", UNDECIDED),
    ],
)
def test_yes_and_no(answer: str, verdict: bool | None) -> None:
    asked = question("small_predicate", "Correct, Region [0] occupies less space than Region [1].")
    assert score(asked, answer).right is verdict


@pytest.mark.parametrize(
    ("category", "answer", "verdict"),
    [
        ("left_predicate", "Region [1] is on Region [0]'s right.", RIGHT),
        ("left_predicate", "Region [0] is right of Region [1].", WRONG),
        ("left_predicate", "Region [0] is on the left side of the picture.", RIGHT),
        ("left_predicate", "Region [0] is more on the left side. Region [1] is more to the left.", UNDECIDED),
        ("left_predicate", "Region [0] is to the left of Region [1] and is to the right of Region [1].", UNDECIDED),
        ("behind_predicate", "Region [1] is green and is nearer, while Region [0] is red and is further back.", RIGHT),
        ("above_predicate", "Region [1] lies beneath Region [0].", RIGHT),
        ("above_predicate", "Region [0] is not under Region [1].", RIGHT),
        ("above_predicate", "Region [0] is above the sofa.", UNDECIDED),
        ("above_predicate", "Region [0] has a lower height than Region [1].", UNDECIDED),
        ("behind_predicate", "Region [0] is further from the camera.", RIGHT),
        ("behind_predicate", "Region [0] is in front. It is closer to the viewer than Region [1].", WRONG),
        ("behind_predicate", "Region [0] is not as far as Region [1].", WRONG),
        ("wide_predicate", "The width of Region [0] surpasses that of Region [1].", RIGHT),
        ("tall_predicate", "Region [0]'s height falls short of Region [1]'s.", WRONG),
        ("tall_predicate", "Region [0]'s height does not fall short of Region [1]'s.", RIGHT),
    ],
)
def test_every_axis_and_its_inversion(category: str, answer: str, verdict: bool | None) -> None:
    assert score(question(category, "Yes."), answer).right is verdict


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ("Region [1]", RIGHT),
        ("**Region [0]**", WRONG),
        ("The answer is Region [1].", RIGHT),
        ("Region [1] is higher up.", RIGHT),
        ("Positioned higher is Region [1].", RIGHT),
        ("Region [0] is lower than Region [1].", RIGHT),
        ("Region [0] is not the higher one.", RIGHT),
        ("The shelf (Region [1]) is above the chair (Region [0]).", RIGHT),
        ("... is below Region [1].", RIGHT),
        ("Region [0]\nRegion [1]\n\nAnswer: Region [1]", RIGHT),
        ("Region [0]\nRegion [1]", UNDECIDED),
        ("Region [1] is higher. Region [0] is higher.", UNDECIDED),
        ("Both are at the same height.", WRONG),
        ("Region [1] is taller.", UNDECIDED),
        ("Region [11] is higher up.", RIGHT),
        ("", UNDECIDED),
    ],
)
def test_choices_by_region(answer: str, verdict: bool | None) -> None:
    assert score(question("above_choice", "Region [1] is higher up."), answer).right is verdict


def test_a_reference_that_says_nothing_is_bad_input() -> None:
    with pytest.raises(UserError, match="its reference says nothing"):
        reference_value(question("width_data", "It is wide."))
