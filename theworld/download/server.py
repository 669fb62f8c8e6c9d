"""The bucket over plain HTTPS: an unsigned GET needs no AWS client, and none of its settings can interfere.

What boto3 adds for a signed API costs several times the processor time of the request itself
(``benchmarks/download.py`` has the figures); the connections, TLS and proxies are urllib3's, as they are boto3's.
"""

from __future__ import annotations

import threading
import time
import urllib.parse
import urllib.request
from typing import Any, NoReturn

import urllib3
from urllib3.util import Retry, Timeout

CONNECT_TIMEOUT = 10.0
NOT_FOUND = frozenset((404, 410))
NO_OBJECT = frozenset(("", "NoSuchKey", "Gone"))
"""Codes of an S3 that say that the object is not there, as a 404 without any does; NoSuchBucket says something else."""
NOT_LISTED = "AccessDenied"
"""With a 403, what an S3 says of an object that is not there to somebody who may not list the bucket."""
TRY_AGAIN = frozenset((407, 408, 425, 429))
REDIRECTS = frozenset((301, 302, 303, 307, 308))
MOST_REDIRECTS = 3
TRY_AGAIN_CODES = frozenset(("RequestTimeout", "SlowDown", "PermanentRedirect", "TemporaryRedirect"))
LONGEST_PAUSE = 30.0
FIRST_PAUSE = 0.25
LONGEST_RETRY_AFTER = 120.0
AGENT = "TheWorld-download (urllib3)"


class NotThere(Exception):
    """A final answer: asking again will not help."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"{status} {reason}")
        self.status, self.reason = status, reason


class Refused(Exception):
    """Asking again at once will not help, but it says nothing about the image either."""


class TryAgain(Exception):
    """No or no good answer this time.

    Attributes:
        answered: the server sent at least a status line.
        retry_after: seconds that it asked to wait, or 0.
        digest: hash of the bytes that came, if they were complete but not as stated.
    """

    def __init__(self, problem: str, answered: bool, retry_after: float = 0.0, digest: str = "") -> None:
        super().__init__(problem)
        self.answered, self.retry_after, self.digest = answered, retry_after, digest


class Server:
    """The bucket, for all threads of a process.

    Args:
        base: address that keys are appended to.
        connections: kept open at most.
        timeout: seconds without a byte.
    """

    def __init__(self, base: str, connections: int, timeout: float) -> None:
        self.base = base
        self.timeout = timeout
        self.last_answer = 0.0
        self.etags_are_hashes = True
        self.stopping = threading.Event()
        address = urllib.parse.urlsplit(base)
        settings: dict[str, Any] = {
            "maxsize": connections,
            "timeout": Timeout(connect=min(CONNECT_TIMEOUT, timeout), read=timeout),
            "retries": Retry(
                0, connect=0, read=0, redirect=False, other=0, raise_on_status=False, respect_retry_after_header=False
            ),
            "headers": {"User-Agent": AGENT, "Accept-Encoding": "identity"},
        }
        proxy = urllib.request.getproxies().get(address.scheme)
        if proxy and not urllib.request.proxy_bypass(address.hostname or ""):
            if "://" not in proxy:
                proxy = f"http://{proxy}"
            self.pool: urllib3.PoolManager = urllib3.ProxyManager(
                proxy, proxy_headers=proxy_credentials(proxy), **settings
            )
        else:
            self.pool = urllib3.PoolManager(**settings)

    def url(self, key: str) -> str:
        return f"{self.base}/{urllib.parse.quote(key)}"

    def open(self, key: str, start: int = 0, etag: str | None = None) -> urllib3.BaseHTTPResponse:
        """The answer to a GET, its body unread.

        Args:
            key: of the object.
            start: first byte wanted.
            etag: the object must still have it.

        Raises:
            NotThere: there is no such object.
            Refused: it cannot be had from here.
            TryAgain: no answer, or one that may change.
        """
        headers = {"User-Agent": AGENT, "Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
        if etag:
            headers["If-Match"] = etag
        url = self.url(key)
        for _ in range(1 + MOST_REDIRECTS):
            try:
                response = self.pool.request("GET", url, headers=headers, preload_content=False, redirect=False)
            except (urllib3.exceptions.HTTPError, OSError) as error:
                raise TryAgain(describe(error), answered=False) from error
            self.last_answer = time.monotonic()
            if response.status == (206 if start else 200):
                return response
            if response.status not in REDIRECTS or "Location" not in response.headers:
                self._raise_status(response)
            url = self._redirected(url, response)
        raise Refused(f"more than {MOST_REDIRECTS} redirects")

    def _redirected(self, url: str, response: urllib3.BaseHTTPResponse) -> str:
        """Where a redirect leads: never to another machine, which may be one that only this one can reach.

        Raises:
            Refused: it leads elsewhere.
        """
        response.close()
        target = urllib.parse.urljoin(url, response.headers["Location"])
        if urllib.parse.urlsplit(target)[:2] != urllib.parse.urlsplit(self.base)[:2]:
            raise Refused(f"{response.status} redirects to {target[:100]}, which is not download.endpoint")
        return target

    def _raise_status(self, response: urllib3.BaseHTTPResponse) -> NoReturn:
        status = response.status
        try:
            text = response.read(4096, decode_content=False).decode("utf-8", "replace")
        except (urllib3.exceptions.HTTPError, OSError):
            text = ""
        response.close()
        code = text.partition("<Code>")[2].partition("</Code>")[0].strip()
        reason = code or response.reason or "refused"
        # A refusal that does not come from an S3 (a proxy's, a firewall's) says nothing about the image.
        from_s3 = bool(code) and code not in TRY_AGAIN_CODES
        if (status in NOT_FOUND and code in NO_OBJECT) or (status == 403 and code == NOT_LISTED):
            raise NotThere(status, reason)
        if 400 <= status < 500 and status not in TRY_AGAIN and from_s3:
            raise Refused(f"{status} {reason}")
        raise TryAgain(f"{status} {reason}", answered=True, retry_after=retry_after(response))

    def pause(self, attempt: int, jitter: float, retry_after: float) -> bool:
        """Wait before the next attempt (0, 1, ...); whether the download is being stopped."""
        grown = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(attempt, 16))
        return self.stopping.wait(max(grown * (0.5 + jitter / 2), retry_after))

    def silent_for(self, since: float) -> float:
        """Seconds without any answer, counted from ``since`` at the earliest."""
        return time.monotonic() - max(self.last_answer, since)


def proxy_credentials(proxy: str) -> dict[str, str] | None:
    parts = urllib.parse.urlsplit(proxy)
    if not parts.username:
        return None
    login = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
    return urllib3.make_headers(proxy_basic_auth=login)


def retry_after(response: urllib3.BaseHTTPResponse) -> float:
    """Seconds of the header Retry-After, if it has that form."""
    text = response.headers.get("Retry-After", "")
    return min(float(text), LONGEST_RETRY_AFTER) if text.isdigit() else 0.0


def describe(error: BaseException) -> str:
    """The innermost cause in one line."""
    while True:
        inner = getattr(error, "reason", None)
        if not isinstance(inner, BaseException):
            break
        error = inner
    text = str(error).splitlines()[0] if str(error) else ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
