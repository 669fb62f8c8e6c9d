"""A local double of a public S3 bucket that can be slow, short, cut, refusing, stalled, or gone.

``with S3Double(objects) as double: ...``; for benchmarks there is ``cheap_double.py``.
"""

from __future__ import annotations

import asyncio
import hashlib
import socket
import threading
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote

BUCKET = "open-images-dataset"
NAMES = {200: "OK", 206: "Partial Content", 403: "Forbidden", 404: "Not Found", 429: "Slow Down", 503: "Slow Down"}


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one answer.

    Attributes:
        kind: ``status`` (that status instead), ``cut`` (the connection ends inside the body), ``short`` (a shorter
            body with a fitting Content-Length), ``garbled`` (a byte of the body differs), ``stall`` (nothing more
            comes after some of the body), ``length`` (a Content-Length that is no number), ``page`` (a web page with
            status 200), ``blocked`` (one with status 403, as from a firewall), ``drop`` (no answer at all).
        status: for kind status.
        headers: more headers, each with its line end.
    """

    kind: str
    status: int = 503
    headers: str = ""


class S3Double:
    """The server, in a thread of its own.

    Args:
        objects: key to content; may be changed while it runs.
        latency: seconds before each answer.
        rate: bytes a second of each connection; None: as fast as it goes.

    Attributes:
        faults: key to faults of its next answers, used up from the front; a key "*" is for all keys.
        always: key to a fault of each of its answers.
        requests: (method, key) of every request so far, in order.
        headers: key to the header lines of its latest request, in lower case.
    """

    def __init__(self, objects: Mapping[str, bytes], latency: float = 0.0, rate: float | None = None) -> None:
        self.objects, self.latency, self.rate = objects, latency, rate
        self.faults: dict[str, list[Fault]] = defaultdict(list)
        self.always: dict[str, Fault] = {}
        self.requests: list[tuple[str, str]] = []
        self.headers: dict[str, str] = {}
        self.held: dict[str, threading.Event] = {}
        self.connections: set[asyncio.StreamWriter] = set()
        self.etags: dict[str, str] = {}
        self.port = 0
        self.server: asyncio.Server | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def asked(self, key: str) -> int:
        """How often a key was asked for."""
        return sum(name == key for _, name in self.requests)

    def hold(self, key: str) -> None:
        """Do not answer requests for a key until it is released."""
        self.held[key] = threading.Event()

    def release(self, key: str) -> None:
        self.held[key].set()

    # ---- start and stop

    def __enter__(self) -> S3Double:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.come_back()
        return self

    def __exit__(self, *_: object) -> None:
        self.go_away()

        async def end() -> None:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self.loop).result()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    def go_away(self) -> None:
        """Refuse connections and break those that are open, as a network that is gone."""

        async def close() -> None:
            assert self.server is not None
            self.server.close()
            for writer in list(self.connections):
                writer.transport.abort()

        asyncio.run_coroutine_threadsafe(close(), self.loop).result()

    def come_back(self) -> None:
        """Listen, on the same port as before."""

        async def listen() -> None:
            self.server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=512)
            self.port = self.server.sockets[0].getsockname()[1]

        asyncio.run_coroutine_threadsafe(listen(), self.loop).result()

    # ---- answering

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.add(writer)
        # A photo in one call: the double is not to be what a benchmark measures.
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                if not await self._answer(head, writer):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has closed the connection
        finally:
            self.connections.discard(writer)
            writer.transport.abort() if writer.is_closing() else writer.close()

    async def _answer(self, head: str, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; whether the connection goes on."""
        method, target, _ = head.split("\r\n", 1)[0].split(" ", 2)
        key = unquote(target.partition("?")[0]).removeprefix(f"/{BUCKET}/")
        self.requests.append((method, key))
        self.headers[key] = head.lower()
        if self.latency:
            await asyncio.sleep(self.latency)
        while key in self.held and not self.held[key].is_set():
            await asyncio.sleep(0.02)
        fault = self._fault(key)
        body = self.objects.get(key)
        if fault and fault.kind == "drop":
            writer.transport.abort()
            return False
        if fault and fault.kind == "status":
            return await self._send_error(writer, fault.status, fault.headers)
        if fault and fault.kind == "length":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n")
            await writer.drain()
            writer.close()
            return False
        if fault and fault.kind in ("page", "blocked"):
            status = 200 if fault.kind == "page" else 403
            return await self._send(writer, status, b"<html>please log in</html>", "", method)
        if body is None:
            return await self._send_error(writer, 404)
        if key not in self.etags:
            self.etags[key] = hashlib.md5(body, usedforsecurity=False).hexdigest()
        headers = f'ETag: "{self.etags[key]}"\r\nLast-Modified: Mon, 01 Jan 2018 00:00:00 GMT\r\n'
        headers += "Content-Type: image/jpeg\r\n"
        status = 200
        for line in head.lower().split("\r\n"):
            if line.startswith("range: bytes="):
                start = int(line.partition("=")[2].partition("-")[0])
                headers += f"Content-Range: bytes {start}-{len(body) - 1}/{len(body)}\r\n"
                status, body = 206, body[start:]
        if fault and fault.kind == "short":
            body = body[: len(body) // 2]
        if fault and fault.kind == "garbled":
            middle = len(body) // 2
            body = body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]
        if fault and fault.kind in ("cut", "stall"):
            await self._send(writer, status, body, headers, method, part=len(body) // 2)
            if fault.kind == "stall":
                await asyncio.sleep(3600)
            writer.transport.abort()
            return False
        return await self._send(writer, status, body, headers, method)

    def _fault(self, key: str) -> Fault | None:
        for name in (key, "*"):
            if self.faults.get(name):
                return self.faults[name].pop(0)
        return self.always.get(key, self.always.get("*"))

    async def _send_error(self, writer: asyncio.StreamWriter, status: int, headers: str = "") -> bool:
        code = {302: "Found", 400: "InvalidRequest", 403: "AccessDenied", 404: "NoSuchKey", 410: "Gone"}.get(
            status, "SlowDown"
        )
        return await self._send(writer, status, f"<Error><Code>{code}</Code></Error>".encode(), headers, "GET")

    async def _send(
        self, writer: asyncio.StreamWriter, status: int, body: bytes, headers: str, method: str, part: int | None = None
    ) -> bool:
        head = f"HTTP/1.1 {status} {NAMES.get(status, 'Status')}\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
        writer.write(head.encode("latin-1"))
        if method != "HEAD":
            content = body if part is None else body[:part]
            if self.rate is None:
                writer.write(content)
            else:
                step = max(1, int(self.rate / 20))
                for start in range(0, len(content), step):
                    writer.write(content[start : start + step])
                    await writer.drain()
                    await asyncio.sleep(0.05)
        await writer.drain()
        return True
