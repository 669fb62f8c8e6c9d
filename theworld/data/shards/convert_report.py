"""What a conversion tells: progress while it runs, counts at the end."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from theworld.data.entries.choose_images import NOT_NAMED, PassedOver
from theworld.data.entries.formats.entry_format import OPENSPATIAL
from theworld.data.entries.frame import FRACTIONS, OTHER, OUTSIDE, SCALED, TURNED, UNKNOWN
from theworld.data.entries.images import ImageTable
from theworld.data.entries.repeated_ids import MARK
from theworld.progress import LINE_EVERY, Progress

NO_IMAGE = "image not there yet"
OF_BEFORE = {
    UNKNOWN: "annotation's size not checked",
    SCALED: "boxes of another size of the picture",
    TURNED: "boxes of the turned picture",
    OTHER: "boxes of another picture",
}
ODD_SHARE = 0.05
"""Share of samples with odd boxes from which on it is no accident."""

logger = logging.getLogger(__name__)


@dataclass
class Frames:
    """How pictures and annotations went together, where they were not simply of the same size.

    Attributes:
        counts: samples by kind (:mod:`theworld.data.entries.frame`).
        examples: an id of each kind.
        before: kind to count and example of the samples of generations that were written before this was kept.
    """

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    before: dict[str, list[Any]] = field(default_factory=dict)

    def add(self, found: dict[str, tuple[int, str]]) -> None:
        """Kind to count and example, of a shard."""
        for kind, (count, example) in found.items():
            self.counts[kind] += count
            self.examples.setdefault(kind, example)

    def add_before(self, found: dict[str, list[Any]]) -> None:
        """The same of the earlier generations of a data set."""
        for kind, (count, example) in found.items():
            self.before.setdefault(kind, [0, example])[0] += count

    def warn(self, written: int) -> None:
        """Say where boxes look as if they were of other pictures.

        Args:
            written: samples that were written.
        """
        for kind in (OUTSIDE, FRACTIONS):
            if self.counts[kind] > ODD_SHARE * written:
                logger.warning("%d samples: %s; for example %s", self.counts[kind], kind, self.examples[kind])
        wrong = {kind: found for kind, found in self.before.items() if kind != UNKNOWN}
        if wrong:
            logger.warning(
                "%d samples of earlier generations have boxes of another size of their picture, for example %s; shards "
                "never change: to have them right, convert into a new data set (another convert.out)",
                sum(count for count, _ in wrong.values()),
                next(iter(wrong.values()))[1],
            )

    def rows(self) -> list[tuple[str, int]]:
        """For the table."""
        rows = [(f"  {kind}", self.counts[kind]) for kind in (SCALED, TURNED, UNKNOWN) if self.counts[kind]]
        rows += [(f"of before: {OF_BEFORE[kind]}", count) for kind, (count, _) in self.before.items()]
        return rows


@dataclass
class Report:
    """Counts of one conversion.

    Attributes:
        entries: entries in the conversations file.
        images: image files found.
        unreadable: folders and links among the images that could not be looked into.
        passed_over: image files that were not taken, by reason.
        written: samples in the generations that this run added, those of shards finished by a killed run included.
        held_out: how many of these went to the held-out set.
        before: samples that were there already.
        left_out: reason to number of entries that did not become samples.
        bytes: image bytes written by this run.
        seconds: time the run took.
        broken: the line to show if the conversations file is not JSON to its end.
        generations: names of the generations that this run added.
        frames: how pictures and annotations went together.
        format: of the entries.
        suffixed: entries whose id was there before, so that theirs bears a number.
        several, text_alone: good entries of several images, and of none.
    """

    entries: int = 0
    images: int = 0
    unreadable: int = 0
    passed_over: list[PassedOver] = field(default_factory=list)
    written: int = 0
    held_out: int = 0
    before: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    bytes: int = 0
    seconds: float = 0.0
    broken: str | None = None
    generations: list[str] = field(default_factory=list)
    frames: Frames = field(default_factory=Frames)
    format: str = OPENSPATIAL
    suffixed: int = 0
    several: int = 0
    text_alone: int = 0

    def scanned(self, scan: ImageTable, folder: Path) -> None:
        """Count the image files, and say which of them are not taken."""
        self.images = len(scan) + scan.repeated + sum(one.count for one in scan.passed_over)
        self.unreadable, self.passed_over = len(scan.unreadable), scan.passed_over
        if scan.unreadable:
            logger.warning("%s: cannot be read, passed over: %s", folder, "; ".join(scan.unreadable[:5]))
        for one in scan.passed_over:
            if one.reason != NOT_NAMED:
                logger.warning(
                    "%s: %d files are %s, such as %s: not taken; to take them, name their folders, best first, in "
                    "convert.image_folders",
                    *(folder, one.count, one.reason, one.example),
                )

    def table(self) -> str:
        """The counts, a line each."""
        rows = [("entries read", self.entries), ("images found", self.images), ("already there", self.before)]
        counts = (("with several images", self.several), ("of text alone", self.text_alone))
        rows[1:1] = [(f"  {what}", count) for what, count in counts if count]
        if self.suffixed:
            rows.append((f"  of an id that was there before, named id{MARK}2 and so on", self.suffixed))
        if self.unreadable:
            rows.append(("folders that cannot be read", self.unreadable))
        rows += [(f"images not taken: {one.reason}", one.count) for one in self.passed_over]
        rows.append(("written", self.written))
        if self.held_out:
            rows.append(("  of these held out", self.held_out))
        rows += self.frames.rows()
        rows += [(f"left out: {reason}", count) for reason, count in sorted(self.left_out.items()) if count]
        width = max(len(name) for name, _ in rows)
        lines = [f"{name:<{width}}  {count:>10,}" for name, count in rows]
        if self.format != OPENSPATIAL:
            lines.insert(0, f"{'format':<{width}}  {self.format:>10}")
        if self.written:
            rate = f"{self.written / self.seconds:,.0f} images/s, {self.bytes / 1e6 / self.seconds:,.0f} MB/s"
            lines.append(f"{self.seconds:.1f} s, {rate}; new: {', '.join(self.generations)}")
        else:
            lines.append("nothing new to convert")
        return "\n".join(lines)


class ConvertProgress(Progress):
    """Progress in images, of at most so many as there are files, with what was read and written.

    Args:
        samples: most samples there can be to write.
        line_every: seconds between lines.
    """

    of = "of at most"

    def __init__(self, samples: int, line_every: float = LINE_EVERY) -> None:
        super().__init__(samples, "images", line_every=line_every)
        self.bytes = self.json_bytes = 0

    def read(self, json_bytes: int) -> None:
        """Bytes of the conversations file read so far."""
        self.json_bytes = json_bytes
        self.tick()

    def wrote(self, samples: int, size: int) -> None:
        """Samples and image bytes that were written."""
        self.bytes += size
        self.add(samples)

    def note(self, seconds: float) -> str:
        return f"{self.bytes / 1e6 / seconds:,.0f} MB/s, JSON {self.json_bytes / 1e9:.1f} GB"
