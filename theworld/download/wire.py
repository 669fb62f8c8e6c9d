"""One connection to the bucket that speaks just the HTTP/1.1 that a GET of a whole object takes.

urllib3 and the standard library's client build some thirty Python objects for an answer and copy its body twice; with
dozens of threads on one interpreter lock that takes longer than receiving the bytes. Here the head is one string, and
the body is received into one buffer that the connection keeps. Whatever is out of the ordinary (a proxy, a redirect, a
body in chunks) is :class:`Unusual` and left to urllib3.
"""

from __future__ import annotations

import socket
import ssl
import time
from typing import NamedTuple

HEAD = 1 << 12
"""Bytes of an answer that are read before its length is known; what they hold of the body is copied once."""
LONGEST_HEAD = 1 << 16
LONGEST_NUMBER = 15
"""Digits of a Content-Length: a petabyte."""
GONE = (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError)
STEP = 1 << 22
"""Bytes by which the buffer grows: a photo fits, and a false length takes no memory."""


class Unusual(Exception):
    """An answer that is not for this client; the connection is closed."""


class Address(NamedTuple):
    """Where the bucket is: to connect to, for the header Host, and the certificates to trust if it is HTTPS."""

    host: str
    port: int
    name: str
    tls: ssl.SSLContext | None


class Head(NamedTuple):
    """Status line and headers, their names in lower case."""

    status: int
    phrase: str
    headers: dict[str, str]

    @property
    def length(self) -> int:
        return int(self.headers["content-length"])


class Wire:
    """A connection, opened when it is needed. For one thread.

    It serves the next request only after an answer that was received to its last byte: what comes late, after a timeout
    say, would be taken for the answer to another request, with an ETag that fits it.

    Args:
        address: of the bucket.
        agent: header User-Agent.
        connect_timeout: seconds.
        timeout: seconds without a byte.
    """

    def __init__(self, address: Address, agent: str, connect_timeout: float, timeout: float) -> None:
        self.address, self.connect_timeout, self.timeout = address, connect_timeout, timeout
        self.rest = f" HTTP/1.1\r\nHost: {address.name}\r\nUser-Agent: {agent}\r\nAccept-Encoding: identity\r\n\r\n"
        self.kept: socket.socket | None = None
        self.busy: socket.socket | None = None
        self.body = bytearray()
        """The body of the latest answer; overwritten by the next."""
        self.begun = b""

    def ask(self, target: str) -> Head:
        """Send a GET and receive the head of its answer.

        Raises:
            OSError: no connection, or none any more, or no answer in time.
            Unusual: the answer needs more than this client knows.
        """
        request = f"GET {target}{self.rest}".encode("latin-1")
        self.close()
        if self.kept is not None:
            self.busy, self.kept = self.kept, None
            try:
                return self._exchange(self.busy, request)
            except GONE:
                self.close()  # the server does that to connections that were idle: not a fault
        self.busy = self._connect()
        return self._exchange(self.busy, request)

    def _connect(self) -> socket.socket:
        address = self.address
        connection = socket.create_connection((address.host, address.port), self.connect_timeout)
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if address.tls is not None:
                connection = address.tls.wrap_socket(connection, server_hostname=address.host)
            connection.settimeout(self.timeout)
        except BaseException:
            connection.close()
            raise
        return connection

    def _exchange(self, connection: socket.socket, request: bytes) -> Head:
        connection.sendall(request)
        text = b""
        while (end := text.find(b"\r\n\r\n")) < 0:
            piece = connection.recv(HEAD)
            if not piece:
                raise ConnectionResetError("the connection was closed without an answer")
            text += piece
            if len(text) > LONGEST_HEAD:
                self._unusual("a head without an end")
        self.begun = text[end + 4 :]
        return self._parse(text[:end].decode("latin-1"))

    def _parse(self, text: str) -> Head:
        first, *lines = text.split("\r\n")
        version, _, rest = first.partition(" ")
        status, _, phrase = rest.partition(" ")
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        if not version.startswith("HTTP/1.") or not status.isdecimal() or int(status[:3]) < 200:
            self._unusual(first)
        length = headers.get("content-length", "")
        if "transfer-encoding" in headers or not length.isdecimal() or len(length) > LONGEST_NUMBER:
            self._unusual("a body without a stated length")
        if "location" in headers:
            self._unusual("a redirect")
        if version == "HTTP/1.0":
            headers.setdefault("connection", "close")
        return Head(int(status[:3]), phrase, headers)

    def _unusual(self, why: str) -> None:
        self.close()
        raise Unusual(why)

    def receive(self, head: Head, seconds: float) -> bytearray:
        """The body, as far as it comes; a shorter one has broken off or been too slow.

        Args:
            head: of this answer.
            seconds: that it may take at most.

        Raises:
            OSError: the connection broke or stalled.
        """
        connection, body, length = self.busy, self.body, head.length
        assert connection is not None
        deadline = time.monotonic() + seconds
        got = min(len(self.begun), length)
        resize(body, min(length, STEP))
        body[:got] = self.begun[:got]
        while got < length:
            if got == len(body):
                resize(body, min(length, got + STEP))
            with memoryview(body) as view:
                count = connection.recv_into(view[got:])
            if not count or time.monotonic() > deadline:
                break
            got += count
        if got == length and len(self.begun) <= length and head.headers.get("connection", "").lower() != "close":
            self.kept, self.busy = self.busy, None
        else:
            self.close()
            del body[got:]
        return body

    def close(self) -> None:
        """Drop the connection of an answer that was not received to its end, if there is one."""
        busy, self.busy = self.busy, None
        if busy is not None:
            busy.close()


def resize(buffer: bytearray, size: int) -> None:
    """Grown or cut at its end, without a new one for most sizes."""
    more = size - len(buffer)
    if more > 0:
        buffer.extend(bytes(more))
    else:
        del buffer[size:]
