"""Exactly once? python recipes/audit.py SAVE_FOLDER [MDS]

Reads the ledger of a run and, if given or named in the run's config.yaml, the data set, and prints per pass and
generation what was seen once, repeated, never seen. Exit code 0: the promise holds, 1: broken, 2: bad input.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from theworld import cli
from theworld.audit import Audit, PassReport, audit
from theworld.data.shards.ids import data_set_ids
from theworld.errors import EXIT_BROKEN_PROMISE, EXIT_DONE, UserError

SHOWN = 5


def main(argv: list[str]) -> int:
    parser = cli.Parser("recipes/audit.py", __doc__)
    parser.add_argument("save_folder", metavar="SAVE_FOLDER", type=Path, help="the run's")
    parser.add_argument("data_set", metavar="MDS", nargs="?", help="the data set (default: the one in config.yaml)")
    options = parser.parse(argv)
    save_folder = options.save_folder
    if not save_folder.is_dir():
        raise UserError(f"{save_folder}: no such folder")
    result = audit(save_folder, data_set_ids(options.data_set or configured_data_set(save_folder)))
    print_audit(result)
    return EXIT_DONE if result.kept else EXIT_BROKEN_PROMISE


def configured_data_set(save_folder: Path) -> str | None:
    """The data set that the run's own config.yaml names."""
    from omegaconf import OmegaConf

    path = save_folder / "config.yaml"
    config = OmegaConf.load(path) if path.exists() else OmegaConf.create()
    return OmegaConf.select(config, "train_loader.dataset.remote") or OmegaConf.select(
        config, "train_loader.dataset.local"
    )


def print_audit(result: Audit) -> None:
    for report in result.passes:
        print_pass(report)
    print(f"{result.attempts} attempts, {result.superseded_batches} batches trained again after a stop")
    for fault in result.missing_lines[:SHOWN]:
        print(f"  missing: {fault}")
    print("exactly once: " + ("yes" if result.kept else "NO"))


def print_pass(report: PassReport) -> None:
    state = "finished" if report.finished else "not finished"
    print(f"pass {report.number} ({state}, {report.batches} batches)")
    print(f"  seen once   {report.seen_once:>9,}")
    print(f"  repeated    {len(report.repeated):>9,}  {' '.join(report.repeated[:SHOWN])}")
    if report.never_seen:
        left = [name for names in report.never_seen.values() for name in names]
        label = "never seen " if report.finished else "not yet    "
        print(f"  {label} {len(left):>9,}  {' '.join(left[:SHOWN]) if report.finished else ''}")
        for name, count in report.per_generation.items():
            print(f"    {name}: {count:,} seen, {len(report.never_seen[name]):,} not")
    if report.unknown:
        print(f"  not in the data set {len(report.unknown):,}  {' '.join(report.unknown[:SHOWN])}")
    for name, reason in list(report.skipped.items())[:SHOWN]:
        print(f"  no loss: {name}: {reason}")
    if len(report.skipped) > SHOWN:
        print(f"  no loss: {len(report.skipped) - SHOWN} more")


command = partial(cli.run, main)
