"""Does the world help? python recipes/ablate.py YAML [key=value ...] --bench holdout --data FOLDER

Trains the variants of yamls/ablation (plain Gemma 3, world tokens, those of shuffled pictures, an untrained projector)
on the same data and steps, one after the other, each below the YAML's save_folder; asks each the same questions
(recipes/evaluate.py); and prints one table, and each variant paired with the first. Started again, it goes on where it
was. Everything but the keys of a variant's YAML is the same for all. --plan only prints the commands.

--sbatch "OPTIONS" trains through SLURM instead: a job for each variant, and one behind them that evaluates.
Exit code 0: done, 2: bad input, 75 or 85: a training has left to be started again, 1: one has failed.
"""

from __future__ import annotations

import logging
import shlex
import subprocess
import sys
from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from theworld import ablation, cli
from theworld.errors import EXIT_BROKEN_PROMISE, EXIT_DONE, UserError
from theworld.evaluation.compare_models import ALIKE, compare_models, identical_share, show_pairings
from theworld.evaluation.score_table import Scored, from_report, in_columns, make_table
from theworld.files import read_json

log = logging.getLogger(__name__)


def main(argv: list[str]) -> int:
    parser = cli.Parser("recipes/ablate.py", __doc__, sections=())
    parser.add_argument("--bench", choices=("holdout", "spatialrgpt"), default="holdout", help="(default %(default)s)")
    parser.add_argument("--data", metavar="FOLDER|hf://", required=True, help="where the questions are")
    parser.add_argument("--limit", metavar="N", type=int, help="the first N questions only")
    parser.add_argument("--variants", metavar="FOLDER", type=Path, default=Path("yamls/ablation"), help="their YAMLs")
    parser.add_argument("--ranks", metavar="N", type=int, default=1, help="processes (GPUs) of this machine")
    parser.add_argument("--plan", action="store_true", help="print the commands and leave")
    parser.add_argument("--sbatch", metavar="OPTIONS", help='train through SLURM, for example "--nodes=1 --gpus=8"')
    given = parser.parse(argv)
    variants = ablation.variants_of(given.settings, given.variants)
    out = Path(str(variants[0].config.save_folder)).parent / "evaluations"
    asked = ["--bench", given.bench, "--data", given.data, *(["--limit", str(given.limit)] if given.limit else [])]
    questions = ablation.evaluations(variants, asked, out, given.ranks)
    trainings = [ablation.training(variant, given.ranks) for variant in variants if variant.trains]
    if given.plan:
        for command_line in (*trainings, *(one.command for one in questions)):
            cli.say(shlex.join(command_line))
        return EXIT_DONE
    if given.sbatch is not None:
        submit(variants, given, argv)
        return EXIT_DONE
    for command_line in (*trainings, *(one.command for one in questions)):
        log.info("%s", shlex.join(command_line))
        code = subprocess.run(command_line, check=False).returncode
        if code != EXIT_DONE:
            cli.say_error(f"exit code {code} of: {shlex.join(command_line)}", 0)
            return code if code > 0 else EXIT_BROKEN_PROMISE
    show([(one.name, read_report(one.report)) for one in questions])
    return EXIT_DONE


def submit(variants: Sequence[ablation.Variant], given: Namespace, argv: Sequence[str]) -> None:
    """A job for each training, and one that runs this command again when all have ended well."""
    options = shlex.split(given.sbatch)
    jobs = [
        sbatch(*options, f"--job-name={variant.config.run_name}", "slurm/train.sbatch", *variant.arguments)
        for variant in variants
        if variant.trains
    ]
    place = list(argv).index("--sbatch") if "--sbatch" in argv else None
    again = [*argv[:place], *argv[place + 2 :]] if place is not None else [a for a in argv if "--sbatch=" not in a]
    Path("logs").mkdir(exist_ok=True)  # without it SLURM ends the job and says nothing
    wrapped = shlex.join([sys.executable, "recipes/ablate.py", *again])
    behind = [f"--dependency=afterok:{':'.join(jobs)}"] if jobs else []
    last = sbatch(*options, *behind, "--job-name=theworld-ablation", "--output=logs/%x-%j.out", f"--wrap={wrapped}")
    cli.say(f"trainings: jobs {', '.join(jobs) or 'none'}; evaluation and table: job {last}")


def sbatch(*arguments: str) -> str:
    """Submit a job; its number.

    Raises:
        UserError: SLURM refuses, or is not here.
    """
    try:
        done = subprocess.run(["sbatch", "--parsable", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise UserError("--sbatch: there is no sbatch here; leave the option out to train on this machine") from error
    if done.returncode != 0:
        raise UserError(f"--sbatch: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else 'refused'}")
    return done.stdout.strip().partition(";")[0]


def read_report(path: Path) -> list[Scored]:
    """The scored answers of an evaluation."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: no report; run the same command again")
    return from_report(content)


def show(evaluated: Sequence[tuple[str, list[Scored]]]) -> None:
    """One line for each evaluation, then each of them paired with the first."""
    rows: list[tuple[str, ...]] = [
        ("", "n", "overall %", "95 %", "qualitative %", "quantitative %", "blind floor", "undecided")
    ]
    for name, scored in evaluated:
        lines = {line.name: line for line in make_table(scored)}
        whole = lines["overall"]
        parts = [f"{lines[part].accuracy:.1f}" if part in lines else "-" for part in ("qualitative", "quantitative")]
        interval = f"{whole.low:.1f}-{whole.high:.1f}"
        floor, undecided = f"{whole.blind_floor:.1f}", str(whole.undecided)
        rows.append((name, str(whole.questions), f"{whole.accuracy:.1f}", interval, *parts, floor, undecided))
    cli.say(in_columns(rows))
    base_name, base = evaluated[0]
    for name, scored in evaluated[1:]:
        cli.say(f"\nfirst: {base_name}, second: {name}\n{show_pairings(compare_models(base, scored)[:3])}")
    for place, (name, scored) in enumerate(evaluated):
        for other, compared in evaluated[:place]:
            alike = identical_share(compared, scored)
            if alike >= ALIKE:
                cli.say(f"warning: {alike:.1f} % of the answers of {other} and {name} are identical")


command = partial(cli.run, main)
