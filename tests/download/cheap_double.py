"""A double of the bucket for benchmarks, so cheap that the downloader is measured and not its server:

    python tests/download/cheap_double.py FOLDER [--latency 0.02]

It serves a folder's files under ``train/<file name>`` and prints its address. One thread, one epoll; a file goes from
the page cache to the connection with sendfile. In a real download the server's work is done elsewhere; here it takes
the downloader's cores. Answers are those of S3 to plain GET and HEAD; faults are what ``s3_double.py`` is for.
"""

from __future__ import annotations

import argparse
import hashlib
import heapq
import os
import select
import socket
import time
from itertools import count
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from s3_double import BUCKET

SEND_BUFFER = 1 << 20
"""Bytes: a photo of 300 kB leaves in one call."""
NOT_FOUND = b"<Error><Code>NoSuchKey</Code></Error>"


class Stored(NamedTuple):
    """An object: its open file, its length, and the head of the answer that has it."""

    descriptor: int
    length: int
    head: bytes


def store(folder: Path) -> dict[str, Stored]:
    """Key to object; links share an open file."""
    by_inode: dict[int, Stored] = {}
    found = {}
    for path in folder.iterdir():
        inode = path.stat().st_ino
        if inode not in by_inode:
            content = path.read_bytes()
            etag = hashlib.md5(content, usedforsecurity=False).hexdigest()
            head = (
                f'HTTP/1.1 200 OK\r\nContent-Length: {len(content)}\r\nETag: "{etag}"\r\nAccept-Ranges: bytes\r\n'
                "Last-Modified: Mon, 01 Jan 2018 00:00:00 GMT\r\nContent-Type: image/jpeg\r\nServer: AmazonS3\r\n\r\n"
            )
            by_inode[inode] = Stored(os.open(path, os.O_RDONLY), len(content), head.encode())
        found[f"/{BUCKET}/train/{path.name}"] = by_inode[inode]
    return found


class Client:
    """One connection: what it has asked, and how much of the answer has left."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.received = b""
        self.object: Stored | None = None
        self.sent = 0


class CheapDouble:
    """The server.

    Args:
        objects: target of a request to object.
        latency: seconds from a request to its answer.
    """

    def __init__(self, objects: dict[str, Stored], latency: float) -> None:
        self.objects, self.latency = objects, latency
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.poll = select.epoll()
        self.poll.register(self.listener, select.EPOLLIN)
        self.clients: dict[int, Client] = {}
        self.due: list[tuple[float, int, Client, bytes]] = []
        self.order = count()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    def serve(self) -> None:
        """Forever."""
        while True:
            wait = max(0.0, self.due[0][0] - time.monotonic()) if self.due else -1
            for descriptor, event in self.poll.poll(wait):
                if descriptor == self.listener.fileno():
                    self._accept()
                elif event & select.EPOLLOUT:
                    self._go_on(self.clients[descriptor])
                else:
                    self._receive(self.clients[descriptor])
            now = time.monotonic()
            while self.due and self.due[0][0] <= now:
                *_, client, request = heapq.heappop(self.due)
                self._answer(client, request)

    def _accept(self) -> None:
        connection, _ = self.listener.accept()
        connection.setblocking(False)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.clients[connection.fileno()] = Client(connection)
        self.poll.register(connection, select.EPOLLIN)

    def _receive(self, client: Client) -> None:
        try:
            piece = client.connection.recv(1 << 16)
        except ConnectionError:
            piece = b""
        if not piece:
            self._close(client)
            return
        client.received += piece
        if client.received.endswith(b"\r\n\r\n"):
            request, client.received = client.received, b""
            heapq.heappush(self.due, (time.monotonic() + self.latency, next(self.order), client, request))

    def _answer(self, client: Client, request: bytes) -> None:
        if client.connection.fileno() < 0:
            return  # closed while it waited
        method, target, _ = request.split(b" ", 2)
        found = self.objects.get(unquote(target.partition(b"?")[0].decode("latin-1")))
        try:
            if found is None:
                head = f"HTTP/1.1 404 Not Found\r\nContent-Length: {len(NOT_FOUND)}\r\n\r\n".encode()
                client.connection.sendall(head if method == b"HEAD" else head + NOT_FOUND)
            elif method == b"HEAD":
                client.connection.sendall(found.head)
            else:
                client.connection.send(found.head, socket.MSG_MORE)
                client.object, client.sent = found, 0
                self._go_on(client)
        except ConnectionError:
            self._close(client)

    def _go_on(self, client: Client) -> None:
        """Send what the connection takes; the rest when it takes more."""
        stored = client.object
        assert stored is not None
        try:
            while client.sent < stored.length:
                left = stored.length - client.sent
                client.sent += os.sendfile(client.connection.fileno(), stored.descriptor, client.sent, left)
        except BlockingIOError:
            self.poll.modify(client.connection, select.EPOLLOUT)
            return
        except ConnectionError:
            self._close(client)
            return
        client.object = None
        self.poll.modify(client.connection, select.EPOLLIN)

    def _close(self, client: Client) -> None:
        self.clients.pop(client.connection.fileno(), None)
        client.connection.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--latency", type=float, default=0.0)
    options = parser.parse_args()
    double = CheapDouble(store(options.folder), options.latency)
    print(double.endpoint, flush=True)
    double.serve()


if __name__ == "__main__":
    main()
