"""Text that may be shown and kept: without credentials, and without what could steer a terminal."""

from __future__ import annotations

import logging
import re
from typing import Any, TextIO, cast

HIDDEN = "<hidden>"
NOT_WRITTEN = "<not written>"
NAMES = r"token|secret|password|passwd|signature|api_?key|access_?key|credential"
SECRET_KEY = re.compile(NAMES, re.IGNORECASE)
"""Names of settings whose values are never written."""
USER_OF_URL = re.compile(
    r"""(\b[A-Za-z][A-Za-z0-9+.-]*://)(?:[^\s/@:?#"'<>]*:(?!\d+(?:/|$))[^\s"'<>]+|[^\s/@?#"'<>]+)@"""
)
"""``scheme://USER:PASSWORD@``, the password with slashes too, and ``scheme://TOKEN@``; not ``hf://OWNER/NAME@REVISION``
or ``http://HOST:PORT/...``."""
SETTING = re.compile(rf"""((?:^|[\s?&;{{,])[\w.-]*(?:{NAMES})(?:_?(?:id|key))?=)[^\s&;"',}}]+""", re.IGNORECASE)
"""``password=...`` on a command line, ``?X-Amz-Signature=...`` in a URL."""
HUB_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{8,}")
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""All but tab and line feed: with the others a server could move the cursor, retitle a terminal or turn text round."""


def hide_secrets(text: str) -> str:
    """The text with credentials replaced: of URLs, of settings with telling names, the Hub's tokens."""
    text = USER_OF_URL.sub(rf"\1{HIDDEN}@", text)
    return HUB_TOKEN.sub(HIDDEN, SETTING.sub(rf"\g<1>{HIDDEN}", text))


def plain(text: str) -> str:
    """The text as it may go to a terminal or a log."""
    return CONTROL.sub("\N{REPLACEMENT CHARACTER}", hide_secrets(text))


def without_secrets(value: Any) -> Any:
    """The same structure of dictionaries and lists with credentials replaced, by the key or in the value."""
    if isinstance(value, dict):
        return {
            key: NOT_WRITTEN if SECRET_KEY.search(str(key)) and item is not None else without_secrets(item)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [without_secrets(item) for item in value]
    return hide_secrets(value) if isinstance(value, str) else value


class HidingStream:
    """A stream that others print to: what they write goes on with credentials replaced, all else is the stream's."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """As the stream's own."""
        return self.stream.write(hide_secrets(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def hiding(stream: TextIO) -> TextIO:
    """The stream, for others to print to, that shows no credentials."""
    return cast(TextIO, HidingStream(stream))


class PlainFormatter(logging.Formatter):
    """A log line, or several with a traceback, as :func:`plain` makes it."""

    def format(self, record: logging.LogRecord) -> str:
        return plain(super().format(record))
