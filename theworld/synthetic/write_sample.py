"""Write the built-in sample to a folder: ``openspatial.json`` or ``captions.json``, and ``images/``."""

from __future__ import annotations

import collections
import filecmp
import hashlib
import itertools
import json
import logging
import math
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from theworld.errors import UserError
from theworld.files import write_bytes
from theworld.processes import end_broken, end_with_parent, kill_workers, leave_interrupts_to_parent
from theworld.progress import Progress
from theworld.synthetic.sample import describe, filename

log = logging.getLogger(__name__)

JSON_NAME = "openspatial.json"
CAPTIONS_NAME = "captions.json"
IMAGES_NAME = "images"
MIN_SIZE, MAX_SIZE = 64, 2048
SAMPLES_PER_TASK = 8
TASKS_AHEAD = 4
"""Tasks handed out per worker before their results are taken: what bounds the memory."""
SECONDS_PER_LINE = 20.0


@dataclass(frozen=True)
class Summary:
    """What a call of :func:`generate` did.

    Attributes:
        json: path of the JSON.
        images: folder of the images.
        samples: entries in the JSON.
        available: images that belong to the set, ``round(share * samples)``.
        written: images written by this call; the others were there already, with the same bytes.
        json_bytes: size of the JSON.
        image_bytes: size of the images that belong to the set.
        json_changed: False when the JSON was there already, with the same bytes, and was left alone.
    """

    json: Path
    images: Path
    samples: int
    available: int
    written: int
    json_bytes: int
    image_bytes: int
    json_changed: bool


@dataclass(frozen=True)
class _Task:
    """A run of samples for one worker; ``available`` has a flag for each."""

    seed: int
    size: int
    start: int
    available: tuple[bool, ...]
    images: Path
    captions: bool


@dataclass(frozen=True)
class _Done:
    entries: list[str]
    written: int
    image_bytes: int


def generate(
    out: Path,
    samples: int = 100,
    seed: int = 17,
    available: float = 1.0,
    workers: int | None = None,
    size: int = 1024,
    captions: bool = False,
) -> Summary:
    """Write a data set in the format of OpenSpatialDataset, or one of pictures with captions.

    Sample i depends on ``seed``, ``size`` and i alone: a larger set starts with the smaller one, and the bytes do not
    depend on the workers. Of the images, those whose hash of seed and name ranks lowest are written, so that a higher
    share adds images to those of a lower one. Files that are there with the right bytes are left untouched; images
    that a call with a higher share wrote are never removed.

    Args:
        out: folder for the JSON and ``images/``; made when missing.
        samples: number of entries.
        seed: of the whole set.
        available: share of the images to write, 0 to 1; the JSON names all of them.
        workers: processes; by default one a core, and one for few samples.
        size: longest side of the images, pixels.
        captions: write ``captions.json`` (``id, image, caption``), of the same pictures, and no ``openspatial.json``.

    Raises:
        UserError: an argument out of range, or a file that cannot be written.
    """
    out = Path(out)
    _check(samples, seed, available, workers, size)
    images = out / IMAGES_NAME
    try:
        images.mkdir(parents=True, exist_ok=True)
        if workers is None:
            workers = min(_cores(), max(1, samples // (2 * SAMPLES_PER_TASK)))
        flags = choose_available(seed, samples, available)
        tasks = _tasks(seed, size, flags, images, captions)
        return _write(out / (CAPTIONS_NAME if captions else JSON_NAME), tasks, samples, int(flags.sum()), workers)
    except BrokenProcessPool as error:
        raise UserError(f"{out}: a worker process was killed (out of memory?); run the same command again") from error
    except OSError as error:
        raise UserError(f"{error.filename or out}: cannot write the sample here: {error.strerror or error}") from error


def choose_available(seed: int, samples: int, share: float) -> np.ndarray:
    """Which images are there: a flag for each sample, ``round(share * samples)`` of them True.

    The samples with the lowest hashes of seed and file name are chosen, so a higher share adds to a lower one.
    """
    hashes = np.fromiter((_hash(seed, filename(seed, index)) for index in range(samples)), np.uint64, samples)
    flags = np.zeros(samples, dtype=bool)
    flags[np.argsort(hashes, kind="stable")[: round(share * samples)]] = True
    return flags


def _hash(seed: int, name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}/available".encode()).digest()[:8], "big")


def _cores() -> int:
    """Cores that this process may use; not every system can tell, those say how many there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check(samples: int, seed: int, available: float, workers: int | None, size: int) -> None:
    if samples < 1:
        raise UserError(f"samples must be at least 1, not {samples}")
    if seed < 0:
        raise UserError(f"seed must not be negative, but is {seed}")
    if not (math.isfinite(available) and 0.0 <= available <= 1.0):
        raise UserError(f"available is a share of the images: give a number from 0 to 1, not {available}")
    if workers is not None and workers < 1:
        raise UserError(f"workers must be at least 1, not {workers}")
    if not MIN_SIZE <= size <= MAX_SIZE:
        raise UserError(f"size is the longest side in pixels: give {MIN_SIZE} to {MAX_SIZE}, not {size}")


def _tasks(seed: int, size: int, flags: np.ndarray, images: Path, captions: bool) -> Iterator[_Task]:
    for start in range(0, len(flags), SAMPLES_PER_TASK):
        chunk = tuple(bool(flag) for flag in flags[start : start + SAMPLES_PER_TASK])
        yield _Task(seed, size, start, chunk, images, captions)


def _write(path: Path, tasks: Iterator[_Task], samples: int, available: int, workers: int) -> Summary:
    """Collect the entries in order into the JSON, which gets its name when it is complete."""
    aside = path.with_name(f".{path.name}.tmp")
    written = image_bytes = 0
    progress = Progress(samples, "samples")
    try:
        with open(aside, "w", encoding="utf-8") as file:
            separator = "["
            for done in _in_order(tasks, workers):
                for entry in done.entries:
                    file.write(separator + entry)
                    separator = ", "
                written += done.written
                image_bytes += done.image_bytes
                progress.add(len(done.entries))
            file.write("]")
        changed = not (path.is_file() and filecmp.cmp(aside, path, shallow=False))
        if changed:
            os.replace(aside, path)
    finally:
        progress.close()
        aside.unlink(missing_ok=True)
    size = path.stat().st_size
    return Summary(path, path.parent / IMAGES_NAME, samples, available, written, size, image_bytes, changed)


def _in_order(tasks: Iterator[_Task], workers: int) -> Iterator[_Done]:
    """Work off the tasks, in this process or in others, and give the results in the order of the tasks."""
    if workers == 1:
        yield from map(_render, tasks)
        return
    # spawn: a fork of a process with threads (torch, a progress bar) can hang.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawn, initializer=_start_worker) as pool:
        waiting: collections.deque[Future[_Done]] = collections.deque()
        try:
            for task in itertools.chain(tasks, [None] * (workers * TASKS_AHEAD)):
                if task is not None:
                    waiting.append(pool.submit(_render, task))
                if waiting and (task is None or len(waiting) >= workers * TASKS_AHEAD):
                    while not wait([waiting[0]], timeout=1.0).done:
                        end_broken(pool)
                    yield waiting.popleft().result()
        except BrokenProcessPool:
            kill_workers(pool)
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _start_worker() -> None:
    leave_interrupts_to_parent()
    end_with_parent()


def _render(task: _Task) -> _Done:
    """Describe the samples of a task and write the images that are available."""
    entries = []
    written = image_bytes = 0
    for offset, available in enumerate(task.available):
        sample = describe(task.seed, task.start + offset, task.size)
        entries.append(json.dumps(sample.caption_entry() if task.captions else sample.entry()))
        if available:
            image = sample.jpeg()
            written += _put(task.images / f"{sample.filename}.jpg", image)
            image_bytes += len(image)
    return _Done(entries, written, image_bytes)


def _put(path: Path, content: bytes) -> bool:
    """Write a file aside and rename it, unless it is there with this content; True when it was written."""
    if path.is_file() and path.stat().st_size == len(content) and path.read_bytes() == content:
        return False
    # Not forced to disk: it can be rendered again.
    write_bytes(path, content, sync=False)
    return True
