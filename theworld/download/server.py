"""The bucket over plain HTTPS: an unsigned GET needs no AWS client, and none of its settings can interfere.

What boto3 adds for a signed API costs several times the processor time of the request itself
(``benchmarks/download.py`` has the figures). Whole objects are asked for over :mod:`theworld.download.wire`; through a
proxy, after a redirect, and for parts of an object it is urllib3, as with boto3.
"""

from __future__ import annotations

import ssl
import threading
import time
import urllib.parse
import urllib.request
from typing import Any

import urllib3
from urllib3.util import Retry, Timeout

from theworld.download.wire import Address, Head, Unusual, Wire

CONNECT_TIMEOUT = 10.0
NOT_FOUND = frozenset((404, 410))
TRY_AGAIN = frozenset((407, 408, 425, 429))
TRY_AGAIN_CODES = frozenset(("RequestTimeout", "SlowDown", "PermanentRedirect", "TemporaryRedirect"))
LONGEST_PAUSE = 30.0
FIRST_PAUSE = 0.25
LONGEST_RETRY_AFTER = 120.0
AGENT = "TheWorld-download"
LONGEST_REFUSAL = 4096
MOST_UNUSUAL = 16
"""So many answers that the wire does not know, and urllib3 is asked at once: the server is always like that."""


class NotThere(Exception):
    """A final answer: asking again will not help."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"{status} {reason}")
        self.status, self.reason = status, reason


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
        self.address: Address | None = None
        self.unusual = 0
        self.own = threading.local()
        address = urllib.parse.urlsplit(base)
        settings: dict[str, Any] = {
            "maxsize": connections,
            "timeout": Timeout(connect=min(CONNECT_TIMEOUT, timeout), read=timeout),
            "retries": Retry(
                3, connect=0, read=0, redirect=3, other=0, raise_on_status=False, respect_retry_after_header=False
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
            self.address = direct_address(address)
        self.path = urllib.parse.quote(address.path, safe="/%")

    def url(self, key: str) -> str:
        return f"{self.base}/{urllib.parse.quote(key)}"

    def open(self, key: str, start: int = 0, etag: str | None = None) -> urllib3.BaseHTTPResponse:
        """The answer to a GET, its body unread.

        Args:
            key: of the object.
            start: first byte wanted.
            etag: the object must still have it.

        Raises:
            NotThere: refused for good.
            TryAgain: no answer, or one that may change.
        """
        headers = {"User-Agent": AGENT, "Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
        if etag:
            headers["If-Match"] = etag
        try:
            response = self.pool.request("GET", self.url(key), headers=headers, preload_content=False)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise TryAgain(describe(error), answered=False) from error
        self.last_answer = time.monotonic()
        if response.status == (206 if start else 200):
            return response
        try:
            text = response.read(LONGEST_REFUSAL, decode_content=False)
        except (urllib3.exceptions.HTTPError, OSError):
            text = b""
        response.close()
        raise refusal(response.status, response.reason or "", text, response.headers.get("Retry-After", ""))

    def wire(self) -> Wire | None:
        """The calling thread's own connection; None if urllib3 is to be asked."""
        if self.address is None or self.unusual >= MOST_UNUSUAL:
            return None
        wire: Wire | None = getattr(self.own, "wire", None)
        if wire is None:
            wire = self.own.wire = Wire(self.address, AGENT, min(CONNECT_TIMEOUT, self.timeout), self.timeout)
        return wire

    def ask(self, wire: Wire, key: str) -> Head | None:
        """The answer to a GET over the calling thread's connection, its body not received.

        Args:
            wire: the connection.
            key: of the object.

        Returns:
            None if urllib3 has to be asked.

        Raises:
            NotThere: refused for good.
            TryAgain: no answer, or one that may change.
        """
        try:
            head = wire.ask(f"{self.path}/{urllib.parse.quote(key)}")
        except Unusual:
            self.unusual += 1
            return None
        except (OSError, UnicodeError) as error:
            raise TryAgain(describe(error), answered=False) from error
        self.last_answer = time.monotonic()
        if head.status == 200:
            return head
        text = bytearray()
        try:
            if head.length <= LONGEST_REFUSAL:  # else it costs more than a new connection
                text = wire.receive(head, self.timeout)
            else:
                wire.close()
        except OSError:
            pass  # the status alone decides
        raise refusal(head.status, head.phrase, text, head.headers.get("retry-after", ""))

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


def direct_address(base: urllib.parse.SplitResult) -> Address | None:
    """Where a :class:`Wire` connects to; None for an address that has more than a host, a port and a path."""
    if not base.hostname or base.username or base.query or not base.netloc.isascii():
        return None
    secure = base.scheme == "https"
    # The certificates that urllib3 trusts by itself, those of the system.
    tls = ssl.create_default_context() if secure else None
    return Address(base.hostname, base.port or (443 if secure else 80), base.netloc, tls)


def refusal(status: int, phrase: str, body: bytes | bytearray, retry_after: str) -> NotThere | TryAgain:
    """What an answer that is not the object means.

    Args:
        status: of the answer.
        phrase: in words.
        body: its first bytes.
        retry_after: that header, or "".
    """
    text = body.decode("utf-8", "replace")
    code = text.partition("<Code>")[2].partition("</Code>")[0].strip()
    reason = code or phrase or "refused"
    # A refusal that does not come from an S3 (a proxy's, a firewall's) says nothing about the image.
    from_s3 = bool(code) and code not in TRY_AGAIN_CODES
    if status in NOT_FOUND or (400 <= status < 500 and status not in TRY_AGAIN and from_s3):
        return NotThere(status, reason)
    seconds = min(float(retry_after), LONGEST_RETRY_AFTER) if retry_after.isdecimal() else 0.0
    return TryAgain(f"{status} {reason}", answered=True, retry_after=seconds)


def describe(error: BaseException) -> str:
    """The innermost cause in one line."""
    while True:
        inner = getattr(error, "reason", None)
        if not isinstance(inner, BaseException):
            break
        error = inner
    text = str(error).splitlines()[0] if str(error) else ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
