"""Exactly once? python recipes/audit.py SAVE_FOLDER [MDS] [--json FILE]

Follows the lineage that the newest whole checkpoint carries through the ledger of a run, holds both against the data
set (MDS, a folder or a URL, or the one in the run's config.yaml) and the JSON in config.yaml, and prints per pass and
generation what was seen once, repeated, never seen. --json FILE writes the same to a file.

Three verdicts, each yes, no or not checked: at most once; complete against the data set as it is today; complete
against the JSON. Exit code 0: exactly once, the first two are yes; 1: at most once is no, or the proof disagrees; 2:
bad input; 75: nothing is wrong, but the pass is not complete yet, the data has grown, or it could not be checked.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from theworld import cli
from theworld.audit import Audit, DataSet, GenerationIds, JsonIds, PassReport, audit
from theworld.cli import say
from theworld.config.of_run import read_run_config, setting
from theworld.data.shards.ids import data_set_ids, ids_in_json
from theworld.errors import UserError
from theworld.files import write_json

SHOWN = 5


def main(argv: list[str]) -> int:
    parser = cli.Parser("recipes/audit.py", __doc__)
    parser.add_argument("save_folder", metavar="SAVE_FOLDER", type=Path, help="the run's")
    parser.add_argument("data_set", metavar="MDS", nargs="?", help="the data set (default: the one in config.yaml)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the verdicts and what they rest on")
    given = parser.parse(argv)
    if not given.save_folder.is_dir():
        raise UserError(f"{given.save_folder}: no such folder")
    config = read_run_config(given.save_folder / "config.yaml")
    data_set = read_data_set(given.data_set) if given.data_set else configured_data_set(config)
    result = audit(given.save_folder, data_set, configured_json(config))
    print_audit(result)
    if given.json is not None:
        write_json(given.json, result.as_json(), indent=1)
    return result.exit_code


def configured_data_set(config: dict[str, Any]) -> DataSet:
    """The data set that the run was configured with; one that is out of reach leaves its verdict unchecked."""
    section = "train_loader.dataset"
    where = setting(config, f"{section}.remote") or setting(config, f"{section}.local")
    if where is None:
        return DataSet(None, "config.yaml names no data set")
    split = setting(config, f"{section}.split")
    try:
        return read_data_set(f"{where}/{split}" if split else str(where))
    except UserError as error:
        return DataSet(None, str(error))


def read_data_set(where: str) -> DataSet:
    return DataSet([GenerationIds(one.name, one.fingerprint, one.ids) for one in data_set_ids(where)])


def configured_json(config: dict[str, Any]) -> JsonIds:
    """The ids that the run's JSON names, if that is a file here."""
    where = setting(config, "convert.json")
    if where is None or not Path(str(where)).is_file():
        return JsonIds(None, f"{where} is not a file here" if where else "config.yaml names no convert.json")
    holdout = setting(config, "convert.holdout")
    return JsonIds(ids_in_json(Path(str(where)), holdout if isinstance(holdout, float) else 0.0))


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
    say(f"  seen once   {report.seen_once:>9,}")
    print_names("repeated   ", report.repeated, report.names.get("repeated", []))
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
