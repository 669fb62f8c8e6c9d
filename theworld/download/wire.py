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

    Args:
        address: of the bucket.
        agent: header User-Agent.
        connect_timeout: seconds.
        timeout: seconds without a byte.
    """

    def __init__(self, address: Address, agent: str, connect_timeout: float, timeout: float) -> None:
        self.address, self.connect_timeout, self.timeout = address, connect_timeout, timeout
        self.rest = f" HTTP/1.1\r\nHost: {address.name}\r\nUser-Agent: {agent}\r\nAccept-Encoding: identity\r\n\r\n"
        self.socket: socket.socket | None = None
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
        kept = self.socket
        if kept is not None:
            try:
                kept.sendall(request)
                return self._receive_head(kept)
            except ConnectionError:
                self.close()  # the server does that to connections that were idle: not a fault
        fresh = self._connect()
        try:
            fresh.sendall(request)
            return self._receive_head(fresh)
        except OSError:
            self.close()
            raise

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
        self.socket = connection
        return connection

    def _receive_head(self, connection: socket.socket) -> Head:
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
        if not version.startswith("HTTP/1.") or not status.isdigit() or int(status) < 200:
            self._unusual(first)
        if "transfer-encoding" in headers or not headers.get("content-length", "").isdigit():
            self._unusual("a body without a stated length")
        if "location" in headers:
            self._unusual("a redirect")
        if version == "HTTP/1.0":
            headers.setdefault("connection", "close")
        return Head(int(status), phrase, headers)

    def _unusual(self, why: str) -> None:
        self.close()
        raise Unusual(why)

    def receive(self, head: Head, seconds: float) -> bytearray:
        """The body, as far as it comes; a shorter one has broken off or been too slow, and the connection is closed.

        Args:
            head: of this answer.
            seconds: that it may take at most.

        Raises:
            OSError: the connection broke or stalled.
        """
        connection, body, length = self.socket, self.body, head.length
        assert connection is not None
        deadline = time.monotonic() + seconds
        got = min(len(self.begun), length)
        resize(body, min(length, STEP))
        body[:got] = self.begun[:got]
        try:
            while got < length:
                if got == len(body):
                    resize(body, min(length, got + STEP))
                with memoryview(body) as view:
                    count = connection.recv_into(view[got:])
                if not count or time.monotonic() > deadline:
                    break
                got += count
        except OSError:
            self.close()
            raise
        if got < length or len(self.begun) > length or head.headers.get("connection", "").lower() == "close":
            self.close()
            del body[got:]
        return body

    def close(self) -> None:
        """What is in the way of the next answer goes with the connection."""
        connection, self.socket = self.socket, None
        if connection is not None:
            connection.close()


def resize(buffer: bytearray, size: int) -> None:
    """Grown or cut at its end, without a new one for most sizes."""
    more = size - len(buffer)
    if more > 0:
        buffer.extend(bytes(more))
    else:
        del buffer[size:]
