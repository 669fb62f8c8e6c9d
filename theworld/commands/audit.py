"""Exactly once? python recipes/audit.py SAVE_FOLDER [MDS] [--json FILE]

Follows the lineage that the newest whole checkpoint carries through the ledger of a run, holds both against the data
set (MDS, a folder or a URL, or the one in the run's config.yaml) and the JSON in config.yaml, and prints per pass and
generation what was seen once, repeated, never seen. --json FILE writes the same to a file. A run in stages is audited
stage by stage; its exit code is the worst of theirs.

Three verdicts, each yes, no or not checked: at most once; complete against the data set as it is today; complete
against the JSON. Exit code 0: exactly once, the first two are yes; 1: at most once is no, or the proof disagrees; 2:
bad input; 75: nothing is wrong, but the pass is not complete yet, the data has grown, or it could not be checked.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from theworld import cli
from theworld.audit import Audit, PassReport
from theworld.cli import say
from theworld.errors import EXIT_BROKEN_PROMISE, EXIT_DONE, EXIT_RUN_AGAIN
from theworld.files import write_json
from theworld.run_audit import audit_run
from theworld.stage_folders import begun, read_stages

SHOWN = 5


def main(argv: list[str]) -> int:
    parser = cli.Parser("recipes/audit.py", __doc__)
    parser.add_argument("save_folder", metavar="SAVE_FOLDER", type=Path, help="the run's")
    parser.add_argument("data_set", metavar="MDS", nargs="?", help="the data set (default: the one in config.yaml)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the verdicts and what they rest on")
    given = parser.parse(argv)
    stages = read_stages(given.save_folder)
    if stages:
        return audit_stages(given.save_folder, [one.name for one in stages], given.data_set, given.json)
    result = audit_run(given.save_folder, given.data_set)
    print_audit(result)
    if given.json is not None:
        write_json(given.json, result.as_json(), indent=1)
    return result.exit_code


def audit_stages(save_folder: Path, names: list[str], data_set: str | None, json: Path | None) -> int:
    """Each stage by itself: it has its own passes and its own ledger.

    Returns:
        1 if a stage has broken the promise; else 75 if one is not complete or has not begun; else 0.
    """
    begun_ones = [one.name for one in begun(save_folder)]
    results: dict[str, Audit] = {}
    for number, name in enumerate(names, 1):
        say(f"stage {name}, {number} of {len(names)}" + ("" if name in begun_ones else ": not begun"))
        if name in begun_ones:
            results[name] = audit_run(save_folder / name, data_set)
            print_audit(results[name])
    if json is not None:
        write_json(json, {"stages": {name: result.as_json() for name, result in results.items()}}, indent=1)
    codes = {result.exit_code for result in results.values()}
    if len(results) < len(names):
        codes.add(EXIT_RUN_AGAIN)
    return next((code for code in (EXIT_BROKEN_PROMISE, EXIT_RUN_AGAIN) if code in codes), EXIT_DONE)


def print_audit(result: Audit) -> None:
    for report in result.passes:
        print_pass(report)
    attempts = "an unknown number of" if result.attempts is None else result.attempts
    saved = f", proof in {result.checkpoint}" if result.checkpoint else ""
    say(f"{attempts} attempts, {result.superseded} batches trained again after a stop{saved}")
    for note in result.notes[:SHOWN]:
        say(f"  {note}")
    if len(result.notes) > SHOWN:
        say(f"  and {len(result.notes) - SHOWN} notes more")
    say(f"at most once: {result.at_most_once}")
    say(f"complete, data set as it is today: {result.complete}")
    say(f"complete, JSON: {result.complete_json}")
    say(f"exactly once: {result.exactly_once.upper() if result.exactly_once == 'no' else result.exactly_once}")


def print_pass(report: PassReport) -> None:
    state = "finished" if report.ended else "not finished"
    say(f"pass {report.number} ({state}, {report.batches} batches)")
    if report.parent is not None:
        say(f"  began in    {report.parent}")
    say(f"  {'as often as due' if report.sources else 'seen once  '} {report.seen_once:>9,}")
    print_names("repeated   ", report.repeated, report.names.get("repeated", []))
    for name, one in report.sources.items():
        say(f"    {name}: {one['samples']:,} samples, due {one['due']:,} times, seen {one['seen']:,} times")
    if report.whole is not None:
        label = "never seen " if report.ended else "not yet    "
        print_names(label, report.never_seen, report.names.get("never_seen", []) if report.ended else [])
    for name, (seen, unseen) in report.per_generation.items():
        say(f"    {name}: {seen:,} seen, {unseen:,} not")
    if report.added_since:
        say(f"  {report.added_since:,} samples that this pass never had")
    if report.unknown:
        print_names("not in the data set", report.unknown, report.names.get("unknown", []))
    if report.lost:
        say(f"  never trained on, in steps that were not finite: {report.lost:,}")
    if (report.batches or report.ended) and not report.trained:
        say("  never trained on: no sample of the pass carried loss")
    for fault in report.faults[:SHOWN]:
        say(f"  wrong: {fault}")
    for line in report.unproven:
        say(f"  not checked: {line}")
    for name, reason in list(report.reasons.items())[:SHOWN]:
        say(f"  no loss: {name}: {reason}")
    if report.skipped > SHOWN:
        say(f"  no loss: {report.skipped - SHOWN:,} more")


def print_names(label: str, count: int, names: list[str]) -> None:
    say(f"  {label} {count:>9,}  {' '.join(names[:SHOWN])}".rstrip())


command = partial(cli.run, main)
