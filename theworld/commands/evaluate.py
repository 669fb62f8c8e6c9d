"""How good is it? python recipes/evaluate.py RUN_OR_REPO --bench spatialrgpt --data FOLDER [--limit N]

Asks a model (a run's save_folder, an exported folder, OWNER/NAME on the Hub, or a plain Gemma 3) and scores its answers
by rules, without a model as a judge (docs/evaluation.md): per category, qualitative, quantitative and overall, with a
95 % interval, the accuracy of the best constant answers (blind floor), undecided and empty answers. --bench holdout
takes the questions of those kinds in a held-out data set (convert.holdout). Started again, it goes on behind the last
answer; composer -n RANKS recipes/evaluate.py ... shares the questions among GPUs.

With --questions FILE --answers FILE it only scores what any model has answered; --compare A B takes two files of
answers and compares them question by question. Both are JSON lines: questions with id, question, ground_truth,
qa_category; answers with id, prediction. A question without an answer counts as answered with nothing.
Exit code 0: done; 2: bad input.
"""

from __future__ import annotations

import logging
from argparse import Namespace
from functools import partial
from pathlib import Path

from theworld import cli
from theworld.errors import EXIT_DONE, UserError
from theworld.evaluation.compare_models import ALIKE, compare_models, identical_share, show_pairings
from theworld.evaluation.known_results import show_known_results
from theworld.evaluation.questions import read_answers, read_questions
from theworld.evaluation.score_table import Scored, make_table, report, score_all, show_table
from theworld.files import write_json

log = logging.getLogger(__name__)

BENCHES = ("spatialrgpt", "holdout")
WORLDS = ("on", "off", "shuffled", "zero")


def main(argv: list[str]) -> int:
    parser = cli.Parser("recipes/evaluate.py", __doc__)
    parser.add_argument("model", metavar="RUN_OR_REPO", nargs="?", help="the model to ask")
    parser.add_argument("--bench", choices=BENCHES, default=BENCHES[0], help="which questions (default %(default)s)")
    parser.add_argument(
        "--data", metavar="FOLDER|hf://", help="the benchmark's parquet files, or the held-out data set"
    )
    parser.add_argument("--limit", metavar="N", type=positive, help="the first N questions only")
    parser.add_argument("--world", choices=WORLDS, default="on", help="what stands for the pictures' world tokens")
    parser.add_argument("--checkpoint", metavar="NAME", help="of a run (default: the newest that is whole)")
    parser.add_argument("--out", metavar="FOLDER", type=Path, default=Path("evaluations"), help="(default %(default)s)")
    parser.add_argument("--batch-size", metavar="N", type=positive, default=8, help="questions at once at the most")
    parser.add_argument("--max-new-tokens", metavar="N", type=positive, default=256, help="the longest answer")
    parser.add_argument("--seed", metavar="S", type=int, default=0, help="of --world shuffled (default %(default)s)")
    parser.add_argument("--questions", metavar="FILE", type=Path, help="the questions with their references")
    parser.add_argument("--answers", metavar="FILE", type=Path, help="answers to score")
    parser.add_argument("--compare", metavar=("A", "B"), nargs=2, type=Path, help="two files of answers, paired")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures and every verdict")
    parser.add_argument(
        "--known", action="store_true", help="also show published results, which were not measured here"
    )
    given = parser.parse(argv)
    ways = [given.model, given.answers, given.compare]
    if sum(way is not None for way in ways) != 1:
        raise UserError("recipes/evaluate.py: give one of RUN_OR_REPO, --answers FILE or --compare A B (see --help)")
    if given.model is not None:
        ask_and_score(given)
    elif given.questions is None:
        raise UserError("recipes/evaluate.py: --answers and --compare need --questions FILE (see --help)")
    elif given.compare is not None:
        compare(given)
    else:
        score_file(given)
    if given.known and cli.rank() == 0:
        cli.say(f"\n{show_known_results()}")
    return EXIT_DONE


def positive(text: str) -> int:
    """A number above zero."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def ask_and_score(given: Namespace) -> None:
    """Answer what is not answered yet, with the other ranks; rank 0 scores and prints."""
    if given.data is None:
        raise UserError("recipes/evaluate.py: say with --data where the questions are (see --help)")
    from theworld.inference.evaluate_model import Request, evaluate_model

    request = Request(
        model=given.model,
        checkpoint=given.checkpoint,
        bench=given.bench,
        data=given.data,
        limit=given.limit,
        world=given.world,
        seed=given.seed,
        out=given.out,
        batch_size=given.batch_size,
        max_new_tokens=given.max_new_tokens,
    )
    scored, folder = evaluate_model(request)
    if cli.rank() == 0:
        show_scores(scored, given.json)
        write_json(folder / "scores.json", report(scored), indent=1)
        cli.say(f"answers and scores: {folder}")


def score_file(given: Namespace) -> None:
    """Score a file of answers."""
    show_scores(scored_file(given.questions, given.answers), given.json)


def scored_file(questions: Path, answers: Path) -> list[Scored]:
    """The answers of a file, scored; says on stderr how many questions have none."""
    asked, said = read_questions(questions), read_answers(answers)
    scored = score_all(asked, said)
    missing = sum(question.id not in said for question in asked)
    if missing:
        log.warning("%s: %d of %d questions have no answer and count as wrong", answers, missing, len(asked))
    return scored


def show_scores(scored: list[Scored], json: Path | None) -> None:
    """Print the table, and write the figures and verdicts to a file."""
    cli.say(show_table(make_table(scored)))
    if json is not None:
        write_json(json, report(scored), indent=1)


def compare(given: Namespace) -> None:
    """Compare two files of answers."""
    first, second = (scored_file(given.questions, path) for path in given.compare)
    cli.say(f"first: {given.compare[0]}\nsecond: {given.compare[1]}")
    cli.say(show_pairings(compare_models(first, second)))
    alike = identical_share(first, second)
    if alike >= ALIKE:
        cli.say(
            f"warning: {alike:.1f} % of the answers are identical; are these two models, and did training reach both?"
        )
    else:
        cli.say(f"{alike:.1f} % of the answers are identical")


command = partial(cli.run, main, in_ranks=True)
