"""The Hub's client as this project uses it: time limits, faults as one line, what may be tried again, access checks."""

from __future__ import annotations

import errno
import logging
import re
import threading
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from huggingface_hub import HfApi, constants, errors, get_token
from huggingface_hub.utils.tqdm import disable_progress_bars

from theworld.compat import network_errors, use_hub_connections
from theworld.errors import NotNow, UserError, first_line
from theworld.plain_text import hide_secrets

log = logging.getLogger(__name__)

CONNECT_SECONDS = 20.0
SILENT_SECONDS = 120.0
"""Without a byte from the Hub for so long a connection is given up; the client itself would wait for ever."""
REFUSALS = (400, 401, 402, 403, 404, 405, 410, 413, 422)
"""Answers that stay the same however often one asks."""
SIGNED = re.compile(r"(https?://[^\s?]+)\?\S+")


class SentBytes:
    """Bytes of files that this process has sent to the Hub, what was sent again included."""

    def __init__(self) -> None:
        self.total = 0
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        """So many more; any thread may call it."""
        with self._lock:
            self.total += count


sent = SentBytes()


def use_timed_connections() -> None:
    """Time limits on everything that the Hub's client does, and :data:`sent` counts what it sends."""
    use_hub_connections(CONNECT_SECONDS, SILENT_SECONDS, sent.add)


def quiet_client() -> HfApi:
    """The Hub's client for work in the background: time limits, no progress bars, no warnings of its own."""
    use_timed_connections()
    disable_progress_bars()
    for name in ("utils._http", "hf_api", "lfs", "serialization._torch"):
        # It would print an address with its signature at each fault, and a line for each file.
        logging.getLogger(f"huggingface_hub.{name}").setLevel(logging.ERROR)
    return HfApi(library_name="theworld")


def response_of(error: BaseException | None) -> Any:
    """The Hub's answer behind an error of the client, looked for through its causes."""
    while error is not None:
        response = getattr(error, "response", None)
        if response is not None:
            return response
        error = error.__cause__ or error.__context__
    return None


def retry_after(error: BaseException) -> float | None:
    """Seconds that the Hub asks to wait, if it does."""
    response = response_of(error)
    wanted = response.headers.get("Retry-After") if response is not None else None
    if not wanted:
        return None
    if wanted.strip().isdigit():
        return float(wanted)
    try:
        return max((parsedate_to_datetime(wanted) - datetime.now(UTC)).total_seconds(), 0.0)
    except (TypeError, ValueError):
        return None


def is_final(error: BaseException) -> bool:
    """Whether trying again at once cannot help: the Hub has refused, or this machine's disk has."""
    response = response_of(error)
    if response is not None:
        return response.status_code in REFUSALS
    return not isinstance(error, (*network_errors(), ConnectionError, TimeoutError, RuntimeError))


def is_of_network(error: BaseException | None) -> bool:
    """Whether an error, or what it was raised from, is one of a connection."""
    while error is not None:
        if isinstance(error, (*network_errors(), ConnectionError, TimeoutError)):
            return True
        error = error.__cause__
    return False


def is_unreachable(error: BaseException) -> bool:
    """Whether the Hub gave no answer, or none that says anything about the request."""
    response = response_of(error)
    return response is None or response.status_code == 429 or response.status_code >= 500


def fault(error: BaseException, what: str, repo: str) -> UserError:
    """The error to raise for what a read of a repo ran into.

    Args:
        error: the client's or the system's.
        what: was to be read, in front of the line.
        repo: ``OWNER/NAME``.

    Returns:
        A NotNow where the Hub gave no answer; else a UserError, since asking again would give the same.
    """
    line = f"{what}: {explain(error, repo)}"
    if constants.HF_HUB_OFFLINE:
        return UserError(f"{line}; HF_HUB_OFFLINE is set, unset it")
    root = root_of(error)
    of_disk = isinstance(root, OSError) and root.errno is not None and not is_of_network(error)
    return NotNow(line) if is_unreachable(error) and not of_disk else UserError(line)


def explain(error: BaseException, repo: str) -> str:
    """What went wrong with a repo and what to do, in one line without secrets."""
    response = response_of(error)
    page = f"{constants.ENDPOINT}/{repo}"
    if response is not None:
        known = {
            401: "the Hub does not accept the token (401): make a new one with write access at "
            f"{constants.ENDPOINT}/settings/tokens and set HF_TOKEN",
            403: f"the token may not write to {repo} (403): use one with write access to it, or another hub.repo_id",
            404: f"the Hub has no repo {repo}, or hides it from this token (404): check the name at {page}",
            413: "the upload is too large for the Hub (413)",
            429: "too many requests (429): the Hub asks to wait",
        }
        status = response.status_code
        return known.get(status) or f"the Hub answers {status}: {safe_line(error)}"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full ({error.strerror}): free some space in save_folder"
    if is_of_network(error):
        return f"the Hub does not answer ({safe_line(error)})"
    return f"{type(root_of(error)).__name__}: {safe_line(error)}"


def root_of(error: BaseException) -> BaseException:
    """What an error was raised from in the end."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def safe_line(error: BaseException) -> str:
    """The first line of the root of an error, without tokens and signatures."""
    return hide_secrets(SIGNED.sub(r"\1", first_line(root_of(error))))[:300]


def check_write_access(repo: str, private: bool) -> bool:
    """See that the token may write to ``repo``, and make the repo if it is not there.

    Returns:
        Whether the Hub answered; False if it is out of reach, which a later save may find better.

    Raises:
        UserError: there is no token, it may only read, or the repo is another's.
    """
    if constants.HF_HUB_OFFLINE:
        raise UserError("hub.repo_id: HF_HUB_OFFLINE is set, so nothing can be uploaded; unset it, or hub.repo_id")
    if not get_token():
        raise UserError(
            f"hub.repo_id: no token to upload to {repo} with: make one with write access at "
            f"{constants.ENDPOINT}/settings/tokens and set HF_TOKEN, or run huggingface-cli login"
        )
    client = quiet_client()
    try:
        check_role(client.whoami(), repo)
        client.create_repo(repo, private=private, exist_ok=True)
    except (errors.HfHubHTTPError, *network_errors(), OSError) as error:
        if is_unreachable(error):
            log.warning("hub.repo_id: %s; uploads are tried again at each save", explain(error, repo))
            return False
        raise UserError(f"hub.repo_id: {explain(error, repo)}") from error
    return True


def check_role(account: dict[str, Any], repo: str) -> None:
    """Refuse a token that cannot write to ``repo`` whatever the repo's settings are.

    Args:
        account: the Hub's answer to who the token's owner is.
        repo: ``OWNER/NAME``.

    Raises:
        UserError: says which right is missing.
    """
    owner = repo.partition("/")[0]
    token = account.get("auth", {}).get("accessToken", {})
    if token.get("role") == "read":
        raise UserError(
            f"hub.repo_id: the token may only read: make one with write access at {constants.ENDPOINT}/settings/tokens "
            "and set HF_TOKEN"
        )
    names = {account.get("name"), *(organisation.get("name") for organisation in account.get("orgs", []))}
    if owner not in names:
        raise UserError(
            f"hub.repo_id: {repo}: the token is {account.get('name')}'s, who does not belong to {owner}; "
            f"use {account.get('name')}/{repo.partition('/')[2]} or another token"
        )
    if token.get("role") == "fineGrained":
        granted = token.get("fineGrained", {}).get("scoped", [])
        fitting = [right for right in granted if right.get("entity", {}).get("name") in (owner, repo)]
        if not any("repo.write" in right.get("permissions", []) for right in fitting):
            raise UserError(
                f"hub.repo_id: the token has no right to write to repos of {owner} (repo.write); add it at "
                f"{constants.ENDPOINT}/settings/tokens"
            )
