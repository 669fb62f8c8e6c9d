"""Converting in a loop while the download runs."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

from theworld.config.schema import Config
from theworld.data.entries.check_entry import IMAGE_SUFFIXES
from theworld.data.entries.scan import image_suffix
from theworld.data.latents.column import latent_column
from theworld.data.shards.convert import convert
from theworld.data.shards.convert_report import NO_IMAGE, Report
from theworld.download.download_settings import check_settings
from theworld.download.state import State
from theworld.download.wanted import digest_of, identity_of
from theworld.interrupts import stop_on_signal

log = logging.getLogger(__name__)


def watch(config: Config, seconds: float) -> Iterator[Report]:
    """Convert what has arrived, again and again, until nothing more can come.

    That is when every entry has its image, when ``convert.num_samples`` is reached, or when a download of these ids
    (``convert/download_openimages.py``) had finished before the last look. Until a first image is there it only waits.

    Args:
        config: the configuration; its ``download`` section tells what the download is about.
        seconds: pause after each conversion.

    Raises:
        UserError: as :func:`theworld.data.shards.convert.convert`.
    """
    settings = check_settings(config)
    state = State(settings.images, settings.state)
    begun = False
    with stop_on_signal():
        while True:
            # Before the folder is looked at: what comes later is not in that look.
            finished = state.finished(digest_of(identity_of(settings)[0]))
            begun = begun or has_image(settings.images)  # a folder of a million names is not listed for it again
            if begun:
                report = convert(config.convert, latent_column(config))
                yield report
                limit = config.convert.num_samples
                full = limit is not None and report.before + report.written >= limit
                if full or report.broken or not report.left_out[NO_IMAGE]:
                    return
            if finished:
                return
            time.sleep(seconds)


def has_image(folder: Path) -> bool:
    """Whether some image file is in the folder or below it; ends at the first one."""
    for _, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if any(image_suffix(name) in IMAGE_SUFFIXES and not name.startswith(".") for name in files):
            return True
    return False
