"""The ``download`` section, checked: values that make no sense are one line that names the key."""

from __future__ import annotations

import urllib.parse
from dataclasses import dataclass
from pathlib import Path

from theworld.config.schema import MISSING, Config, ConvertConfig
from theworld.config.sizes import parse_bytes
from theworld.data.entries.downloaded import STATE
from theworld.data.entries.hub_json import SCHEME
from theworld.errors import UserError

BUCKET = "open-images-dataset"
AMAZON = f"https://{BUCKET}.s3.us-east-1.amazonaws.com"
"""The bucket with its region in the name: no setting of the user's AWS client comes into it."""
SOURCES = ("images", "tar")
LAYOUTS = ("flat", "sharded")
TARGETS = ("images", "mds")
TRAIN_GROUP = 1_743_042 // 16
"""Images whose id starts with one hex digit: OpenImages V4 to V7 have 1,743,042 with boxes in train
(storage.googleapis.com/openimages/web/factsfigures_v7.html), spread evenly."""
MEAN_BYTES = 308_000
"""Of an image: 401,890 of them take 124 GB."""
MOST_CONNECTIONS = 1024


@dataclass(frozen=True)
class Settings:
    """A checked ``download`` section with what it needs of ``convert``.

    Attributes:
        list: file of ids, or None for those of the JSON.
        images: the image folder.
        base: address that an object's key is appended to.
        spool_limit: bytes.
        convert: the section ``convert``, for ``to`` mds and for the JSON.
        group: images that a tar holds.
        patience: seconds of silence before a run ends, of a server that has given images before.
        patience_at_first: the same of a server that never has: more likely its address is wrong.
        stalled: seconds without any outcome, of whatever kind, before a run ends.
        others: as in :class:`~theworld.config.schema.DownloadConfig`.
    """

    list: Path | None
    images: Path
    base: str
    workers: int
    retries: int
    timeout: float
    source: str
    layout: str
    to: str
    spool_limit: int
    retry_missing: bool
    convert: ConvertConfig
    group: int = TRAIN_GROUP
    patience: float = 1800.0
    patience_at_first: float = 60.0
    stalled: float = 2400.0
    most_missing: float = 0.05

    @property
    def state(self) -> Path:
        """Folder for what the downloader remembers."""
        return self.images / STATE

    @property
    def spool(self) -> Path:
        """Folder for images on their way into shards."""
        return self.state / "spool"

    @property
    def target(self) -> Path:
        """Folder that images are written to."""
        return self.spool if self.to == "mds" else self.images


def check_settings(config: Config) -> Settings:
    """Every value of the section checked.

    Raises:
        UserError: a value is missing or impossible; the line names the key.
    """
    download, convert = config.download, config.convert
    if convert.images is None:
        raise UserError("convert.images is null: the pictures are in the entries, and nothing is downloaded")
    for name in ["images"] + ["json"] * (download.list is None) + ["json", "out"] * (download.to == "mds"):
        if getattr(convert, name) in (MISSING, ""):
            raise UserError(f"convert.{name} is not set; set it in the YAML or as convert.{name}=PATH")
    if download.list is not None and not Path(download.list).is_file():
        raise UserError(f"download.list: {download.list}: no such file; one id a line, as train/<id> or bare")
    if download.list is None and not convert.json.startswith(SCHEME) and not Path(convert.json).exists():
        raise UserError(f"convert.json: {convert.json}: no such file; a path, or {SCHEME}datasets/OWNER/NAME/FILE")
    if Path(convert.images).exists() and not Path(convert.images).is_dir():
        raise UserError(f"convert.images: {convert.images}: is not a folder")
    for key, value, known in (
        ("source", download.source, SOURCES),
        ("layout", download.layout, LAYOUTS),
        ("to", download.to, TARGETS),
    ):
        if value not in known:
            raise UserError(f"download.{key}: {value}: expected one of {', '.join(known)}")
    if not 1 <= download.workers <= MOST_CONNECTIONS:
        raise UserError(f"download.workers: {download.workers}: expected 1 to {MOST_CONNECTIONS} connections")
    if download.retries < 0:
        raise UserError(f"download.retries: {download.retries}: expected 0 or more")
    if not 0 < download.timeout < 3600:
        raise UserError(f"download.timeout: {download.timeout}: expected seconds, more than 0")
    if not 0 <= download.most_missing <= 1:
        raise UserError(f"download.most_missing: {download.most_missing}: expected a share, 0 to 1")
    if download.to == "mds" and download.source == "tar":
        raise UserError("download.source: tar cannot wait for the converter; use it with download.to=images")
    spool_limit = parse_bytes("download.spool_limit", download.spool_limit)
    if spool_limit < 1 << 20:
        raise UserError(f"download.spool_limit: {download.spool_limit}: expected at least 1mb")
    return Settings(
        list=Path(download.list) if download.list is not None else None,
        images=Path(convert.images),
        base=base_address(download.endpoint),
        workers=download.workers,
        retries=download.retries,
        timeout=download.timeout,
        source=download.source,
        layout=download.layout,
        to=download.to,
        spool_limit=spool_limit,
        retry_missing=download.retry_missing,
        most_missing=download.most_missing,
        convert=convert,
    )


def base_address(endpoint: str | None) -> str:
    """Where keys of the bucket are; with an endpoint of the user's in path style, which every S3 knows."""
    if endpoint is None:
        return AMAZON
    parts = urllib.parse.urlsplit(endpoint)
    try:
        good = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
    if not good or parts.query or parts.fragment:
        raise UserError(f"download.endpoint: {endpoint}: expected http(s)://HOST[:PORT]")
    return f"{endpoint.rstrip('/')}/{BUCKET}"
