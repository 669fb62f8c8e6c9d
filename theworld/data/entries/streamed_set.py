"""A data set by Hugging Face's ``datasets`` in streaming: its rows are the entries, and only those being read are held.

For what that library reads and this recipe does not: a data set of many files and configurations on the Hub, in
WebDataset's tars, CSV or Arrow. It runs no code of a repo: loading scripts went with its release 4. Needs the extra
``datasets``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from theworld.compat import network_errors
from theworld.data.entries.hub_json import import_hub, is_refusal
from theworld.errors import NotNow, UserError, causes, first_line
from theworld.files import make_private, own_temporary, read_json, write_json

SCHEME = "datasets:"
URL = re.compile(r"datasets:(?P<path>[^?@]+)(?:@(?P<revision>[^?/@]+))?(?:\?(?P<query>.*))?")
ENDING = ".datasets"
"""Of the small file that stands for such a data set where a path is expected."""
KNOWN = ("name", "split")


@dataclass(frozen=True)
class StreamedSet:
    """What ``datasets.load_dataset`` is asked for.

    Attributes:
        path: ``OWNER/NAME`` on the Hub, or a folder.
        name: its configuration; None: the only one, or the default.
        split: of its splits.
        revision: a commit, so that every pass reads the same rows; None for a folder.
    """

    path: str
    name: str | None = None
    split: str = "train"
    revision: str | None = None

    @classmethod
    def from_url(cls, url: str) -> StreamedSet:
        """Parse ``datasets:OWNER/NAME[@REVISION][?name=CONFIGURATION&split=SPLIT]``.

        Raises:
            UserError: it has another form.
        """
        match = URL.fullmatch(url)
        query = dict(parse_qsl(match["query"] or "", keep_blank_values=True)) if match else {}
        unknown = sorted(query.keys() - set(KNOWN))
        if match is None or unknown or "" in query.values():
            what = f"{unknown[0]} is unknown; " if unknown else ""
            raise UserError(
                f"convert.json: {url}: {what}expected {SCHEME}OWNER/NAME[@REVISION][?name=CONFIGURATION&split=SPLIT]"
            )
        return cls(match["path"], query.get("name"), query.get("split", "train"), match["revision"])

    @property
    def is_folder(self) -> bool:
        """Whether it lies on this machine."""
        return Path(self.path).is_dir()

    def pinned(self) -> StreamedSet:
        """The same at the commit that its revision is now; costs one request.

        Raises:
            UserError: the Hub refuses.
            NotNow: the Hub is out of reach.
        """
        if self.is_folder:
            return self
        try:
            found = import_hub().HfApi().dataset_info(self.path, revision=self.revision)
        except Exception as error:  # the client's many kinds
            told = f"convert.json: {SCHEME}{self.path}: {first_line(error)}"
            if is_refusal(error):
                raise UserError(f"{told}; check the name, or log in with huggingface-cli login or HF_TOKEN") from error
            raise NotNow(f"{told}; run again") from error
        return StreamedSet(self.path, self.name, self.split, found.sha)

    def identity(self) -> dict[str, Any]:
        """Tells one state of it from another, and of a folder the sizes and times of its files."""
        known = {"datasets": asdict(self), "bytes": 0}
        if self.is_folder:
            root = Path(self.path)
            files = sorted(path for path in root.rglob("*") if path.is_file())
            facts = [(str(file.relative_to(root)), file.stat()) for file in files]
            lines = "\n".join(f"{name} {status.st_size} {status.st_mtime_ns}" for name, status in facts)
            known["files"] = hashlib.sha256(lines.encode("utf-8", "replace")).hexdigest()
            known["bytes"] = sum(status.st_size for _, status in facts)
        return known

    def note(self, cache: str | None) -> Path:
        """A small file that stands for it.

        Args:
            cache: ``convert.json_cache``; None: a folder of this user's in ``$TMPDIR``.
        """
        name = hashlib.sha256(repr(self).encode()).hexdigest()[:16] + ENDING
        folder = Path(cache) if cache else own_temporary("theworld-datasets")
        if cache:
            folder.mkdir(parents=True, exist_ok=True)
        else:
            make_private(folder)
        write_json(folder / name, asdict(self))
        return folder / name

    def rows(self) -> Iterator[dict[str, Any]]:
        """Its rows in order; pictures as ``{"bytes", "path"}``, as they are stored.

        Raises:
            UserError: the library is not installed, or does not read this data set.
            NotNow: the Hub did not answer to the end.
        """
        try:
            import datasets  # pyright: ignore[reportMissingImports] -- an extra; the linters run without it
        except ImportError as error:
            raise UserError(
                f"convert.json: {SCHEME}{self.path}: needs Hugging Face's datasets: pip install 'theworld[datasets]'"
            ) from error
        datasets.disable_progress_bars()
        try:
            found: Any = datasets.load_dataset(
                self.path, self.name, split=self.split, revision=self.revision, streaming=True
            )
            yield from found.decode(False)
        except Exception as error:  # the library's many kinds, and those of what it reads
            told = f"convert.json: {SCHEME}{self.path}: {first_line(error)}"
            silent = (ConnectionError, TimeoutError, *network_errors())
            if any(isinstance(one, silent) for one in causes(error)):
                raise NotNow(f"{told}; run again") from error
            raise UserError(told) from error


def rows_by_note(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of the data set that a file of :meth:`StreamedSet.note` stands for.

    Raises:
        UserError: it is no such file, or see :meth:`StreamedSet.rows`.
    """
    known = read_json(path)
    try:
        wanted = StreamedSet(**(known or {}))
    except TypeError as error:
        raise UserError(f"{path}: does not name a data set ({error})") from error
    yield from wanted.rows()
