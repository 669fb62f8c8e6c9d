"""How a repo of the Hub is named in the YAML: OWNER/NAME, or hf://OWNER/NAME[@REVISION]."""

from __future__ import annotations

import re
from dataclasses import dataclass

from theworld.errors import UserError

SCHEME = "hf://"
URL = re.compile(r"hf://(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^@\s]+))?")
REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class Place:
    """A repo of models, and a branch, tag or commit of it (None: the newest)."""

    repo: str
    revision: str | None = None

    @classmethod
    def from_url(cls, key: str, url: str) -> Place:
        """Parse ``hf://OWNER/NAME[@REVISION]``.

        Args:
            key: the YAML key that holds it, for the message.

        Raises:
            UserError: it has another form.
        """
        match = URL.fullmatch(url)
        if not match:
            raise UserError(f"{key}: {url}: expected hf://OWNER/NAME or hf://OWNER/NAME@REVISION")
        return cls(match["repo"], match["revision"])

    def __str__(self) -> str:
        return SCHEME + self.repo + (f"@{self.revision}" if self.revision else "")
