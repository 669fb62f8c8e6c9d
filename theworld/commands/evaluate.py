"""How good is it? python recipes/evaluate.py --bench spatialrgpt --questions FILE --answers FILE [--json FILE]

Scores answers that any model gave, by rules and without a model as a judge (docs/evaluation.md): per category,
qualitative, quantitative and overall, with a 95 % interval, the accuracy of the best constant answers (blind floor),
undecided and empty answers. Both files are JSON lines: questions with id, question, ground_truth, qa_category; answers
with id, prediction. A question without an answer counts as answered with nothing.

--compare A B takes two files of answers and compares them question by question. --known shows what others published.
Exit code 0: done; 2: bad input.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from functools import partial
from pathlib import Path

from theworld import cli
from theworld.errors import UserError
from theworld.evaluation.compare_models import compare_models, identical_share, show_pairings
from theworld.evaluation.known_results import show_known_results
from theworld.evaluation.questions import read_answers, read_questions
from theworld.evaluation.score_table import Scored, make_table, report, score_all, show_table
from theworld.files import write_json

BENCHES = ("spatialrgpt",)
ALIKE = 95.0
"""Percent of identical answers above which two models are said to be one."""


def main(argv: list[str]) -> int:
    parser = cli.Parser("recipes/evaluate.py", __doc__)
    parser.add_argument("--bench", choices=BENCHES, default=BENCHES[0], help="which questions (default %(default)s)")
    parser.add_argument("--questions", metavar="FILE", type=Path, help="the questions with their references")
    parser.add_argument("--answers", metavar="FILE", type=Path, help="answers to score")
    parser.add_argument("--compare", metavar=("A", "B"), nargs=2, type=Path, help="two files of answers, paired")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures and every verdict")
    parser.add_argument(
        "--known", action="store_true", help="also show published results, which were not measured here"
    )
    given = parser.parse(argv)
    if (given.answers is None) == (given.compare is None):
        raise UserError("recipes/evaluate.py: give --answers FILE or --compare A B (see --help)")
    if given.questions is None:
        raise UserError("recipes/evaluate.py: --answers and --compare need --questions FILE (see --help)")
    if given.compare is not None:
        compare(given)
    else:
        score_file(given)
    if given.known:
        print(f"\n{show_known_results()}")
    return 0


def score_file(given: Namespace) -> None:
    """Score a file of answers."""
    show_scores(scored_file(given.questions, given.answers), given.json)


def scored_file(questions: Path, answers: Path) -> list[Scored]:
    """The answers of a file, scored; says on stderr how many questions have none."""
    asked, said = read_questions(questions), read_answers(answers)
    scored = score_all(asked, said)
    missing = sum(question.id not in said for question in asked)
    if missing:
        print(f"{answers}: {missing} of {len(asked)} questions have no answer and count as wrong", file=sys.stderr)
    return scored


def show_scores(scored: list[Scored], json: Path | None) -> None:
    """Print the table, and write the figures and verdicts to a file."""
    print(show_table(make_table(scored)))
    if json is not None:
        write_json(json, report(scored), indent=1)


def compare(given: Namespace) -> None:
    """Compare two files of answers."""
    first, second = (scored_file(given.questions, path) for path in given.compare)
    print(f"first: {given.compare[0]}\nsecond: {given.compare[1]}")
    print(show_pairings(compare_models(first, second)))
    alike = identical_share(first, second)
    if alike >= ALIKE:
        print(
            f"warning: {alike:.1f} % of the answers are identical; are these two models, and did training reach both?"
        )
    else:
        print(f"{alike:.1f} % of the answers are identical")


command = partial(cli.run, main)
