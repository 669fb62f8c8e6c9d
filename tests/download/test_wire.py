"""The downloader's own HTTP: answers out of the ordinary, connections that were kept, TLS, proxies."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from bucket import make_fetcher, objects, photo
from s3_double import BUCKET, Fault, S3Double

from theworld.download.fetch import FAILED, MISSING, SAVED, SILENT, Fetcher, Task
from theworld.download.server import MOST_UNUSUAL
from theworld.download.wire import STEP

KEYS = list(objects(3))
TASKS = [Task(number, key.removesuffix(".jpg"), key.partition("/")[2]) for number, key in enumerate(KEYS)]
OK = b"HTTP/1.1 200 OK\r\n"


def whole(content: bytes, headers: bytes = b"") -> bytes:
    return OK + b"Content-Length: %d\r\n" % len(content) + headers + b"\r\n" + content


class Scripted:
    """A server that gives fixed answers: each connection has a list of them and is closed after the last."""

    def __init__(self, *connections: list[bytes], tls: ssl.SSLContext | None = None) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"{'https' if tls else 'http'}://127.0.0.1:{self.listener.getsockname()[1]}"
        self.answers, self.tls = connections, tls
        self.requests: list[list[str]] = []
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        for answers in self.answers:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return  # the test is over
            asked: list[str] = []
            self.requests.append(asked)
            try:
                if self.tls is not None:
                    connection = self.tls.wrap_socket(connection, server_side=True)
                for answer in answers:
                    head = b""
                    while not head.endswith(b"\r\n\r\n"):
                        piece = connection.recv(4096)
                        if not piece:
                            break
                        head += piece
                    asked.append(head.decode())
                    connection.sendall(answer)
            except OSError:
                pass  # the client has gone, or does not trust it
            connection.close()


@contextmanager
def scripted(*connections: list[bytes], tls: ssl.SSLContext | None = None) -> Iterator[Scripted]:
    server = Scripted(*connections, tls=tls)
    try:
        yield server
    finally:
        server.listener.close()


def through_urllib3(fetcher: Fetcher) -> Fetcher:
    fetcher.server.address = None
    return fetcher


@pytest.mark.parametrize("kind", ["status", "cut", "short", "garbled", "drop", "page", "stall"])
def test_urllib3_finds_the_same_faults(tmp_path: Path, kind: str) -> None:
    with S3Double(objects(1)) as double:
        double.faults[KEYS[0]] = [Fault(kind)]
        fetcher = through_urllib3(make_fetcher(double.endpoint, tmp_path, timeout=0.5))
        assert fetcher.fetch(TASKS[0]).kind == SAVED
        assert double.asked(KEYS[0]) == 2
        assert (tmp_path / TASKS[0].path).read_bytes() == photo(0)


@pytest.mark.parametrize("direct", [True, False])
def test_a_garbled_body_is_never_kept(tmp_path: Path, direct: bool) -> None:
    """Another byte differs each time, or the ETag would be taken for no hash."""
    with S3Double(objects(1)) as double:
        fetcher = make_fetcher(double.endpoint, tmp_path, retries=0)
        if not direct:
            through_urllib3(fetcher)
        double.faults[KEYS[0]] = [Fault("garbled")]
        assert fetcher.fetch(TASKS[0]).kind == FAILED
        assert not (tmp_path / TASKS[0].path).exists()


def test_one_connection_serves_images_and_refusals(tmp_path: Path) -> None:
    error = b"<Error><Code>NoSuchKey</Code></Error>"
    refused = b"HTTP/1.1 404 Not Found\r\nContent-Length: %d\r\n\r\n%s" % (len(error), error)
    with scripted([whole(photo(0)), refused, whole(photo(2))]) as server:
        fetcher = make_fetcher(server.endpoint, tmp_path)
        assert [fetcher.fetch(task).kind for task in TASKS] == [SAVED, MISSING, SAVED]
        assert (tmp_path / TASKS[2].path).read_bytes() == photo(2), "smaller or larger than what came before"
    lines = server.requests[0][0].split("\r\n")
    assert lines[0] == f"GET /{BUCKET}/{KEYS[0]} HTTP/1.1"
    assert f"Host: {server.endpoint.partition('//')[2]}" in lines


def test_a_kept_connection_that_the_server_has_closed_is_no_fault(tmp_path: Path) -> None:
    with scripted([whole(photo(0))], [whole(photo(1))]) as server:
        fetcher = make_fetcher(server.endpoint, tmp_path, retries=0)
        assert [fetcher.fetch(task).kind for task in TASKS[:2]] == [SAVED, SAVED]


def test_an_answer_that_comes_late_is_not_taken_for_the_next(tmp_path: Path) -> None:
    """It would have the bytes and the ETag of another image."""
    with S3Double(objects(3)) as double:
        fetcher = make_fetcher(double.endpoint, tmp_path, timeout=0.3, patience=0.1)
        assert fetcher.fetch(TASKS[0]).kind == SAVED
        double.hold(KEYS[1])
        assert fetcher.fetch(TASKS[1]).kind == SILENT
        double.release(KEYS[1])
        assert fetcher.fetch(TASKS[2]).kind == SAVED
    assert (tmp_path / TASKS[2].path).read_bytes() == photo(2)


@pytest.mark.parametrize(
    "first",
    [
        whole(photo(0), b"Connection: close\r\n"),
        OK.replace(b"1.1", b"1.0") + whole(photo(0)).removeprefix(OK),
        whole(photo(0)) + b"HTTP/1.1 200 OK\r\n",
    ],
    ids=["closes", "HTTP/1.0", "more than stated"],
)
def test_a_connection_is_kept_only_if_both_can(tmp_path: Path, first: bytes) -> None:
    with scripted([first, whole(photo(2))], [whole(photo(1))]) as server:
        fetcher = make_fetcher(server.endpoint, tmp_path, retries=0)
        assert [fetcher.fetch(task).kind for task in TASKS[:2]] == [SAVED, SAVED]
        assert (tmp_path / TASKS[1].path).read_bytes() == photo(1)


def in_chunks(content: bytes) -> bytes:
    chunks = b"%x\r\n%s\r\n0\r\n\r\n" % (len(content), content)
    return OK + b"Transfer-Encoding: chunked\r\n\r\n" + chunks


@pytest.mark.parametrize(
    "answer",
    [
        lambda server: in_chunks(photo(0)),
        lambda server: OK + b"\r\n" + photo(0),
        lambda server: (
            b"HTTP/1.1 302 Found\r\nLocation: %s/elsewhere\r\nContent-Length: 0\r\n\r\n" % server.endpoint.encode()
        ),
        lambda server: b"HTTP/1.1 100 Continue\r\n\r\n" + whole(photo(0)),
    ],
    ids=["chunks", "no length", "redirect", "continue"],
)
def test_what_is_unusual_is_left_to_urllib3(tmp_path: Path, answer: Callable[[Scripted], bytes]) -> None:
    connections: list[list[bytes]] = [[], [], []]
    with scripted(*connections) as server:
        connections[0].append(answer(server))
        connections[1].append(answer(server))
        connections[2].append(whole(photo(0)))
        server.answers = tuple(connections)
        assert make_fetcher(server.endpoint, tmp_path, retries=1).fetch(TASKS[0]).kind == SAVED
    assert (tmp_path / TASKS[0].path).read_bytes() == photo(0)


def test_a_server_that_is_always_unusual_is_asked_once(tmp_path: Path) -> None:
    count = 2 * MOST_UNUSUAL + 1
    with scripted(*[[in_chunks(photo(0))]] * count) as server:
        fetcher = make_fetcher(server.endpoint, tmp_path, retries=0)
        assert all(fetcher.fetch(TASKS[0]).kind == SAVED for _ in range(MOST_UNUSUAL + 1))
        server.thread.join(10)
        assert not server.thread.is_alive()
        assert len(server.requests) == count


def test_a_head_without_an_end_is_no_answer(tmp_path: Path) -> None:
    with scripted(*[[OK + b"X: " + b"x" * 100_000]] * 20) as server:
        fetcher = make_fetcher(server.endpoint, tmp_path, retries=0, patience=0.1)
        assert fetcher.fetch(TASKS[0]).kind in (FAILED, SILENT)
    assert not (tmp_path / TASKS[0].path).exists()


def test_a_large_stated_length_takes_no_memory(tmp_path: Path) -> None:
    with scripted([OK + b"Content-Length: 200000000\r\n\r\n" + photo(0)], [b""]) as server:
        fetcher = make_fetcher(server.endpoint, tmp_path, retries=0)
        outcome = fetcher.fetch(TASKS[0])
        assert (outcome.kind, outcome.reason) == (FAILED, f"{len(photo(0)):,} of 200,000,000 bytes")
        wire = fetcher.server.wire()
        assert wire is not None
        assert len(wire.body) <= STEP


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Key and certificate of 127.0.0.1, signed by itself."""
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "double")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = tmp_path_factory.mktemp("tls") / "double.pem"
    path.write_bytes(private + made.public_bytes(pem))
    return path


@pytest.mark.parametrize("trusted", [True, False])
def test_certificates_are_checked(
    tmp_path: Path, certificate: Path, monkeypatch: pytest.MonkeyPatch, trusted: bool
) -> None:
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)
    with scripted([whole(photo(0)), whole(photo(1))], *[[whole(photo(2))]] * 20, tls=tls) as server:
        fetcher = make_fetcher(server.endpoint, tmp_path, retries=0, patience=0.1)
        outcomes = [fetcher.fetch(task) for task in TASKS]
    if trusted:
        assert [outcome.kind for outcome in outcomes] == [SAVED, SAVED, SAVED]
        assert all((tmp_path / task.path).read_bytes() == photo(task.number) for task in TASKS)
        assert len(server.requests) == 2, "kept, and a new one when the server had closed it"
    else:
        assert SAVED not in [outcome.kind for outcome in outcomes]
        assert "CERTIFICATE_VERIFY_FAILED" in outcomes[0].reason


def test_a_proxy_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with scripted([whole(photo(0))]) as proxy:
        monkeypatch.setenv("http_proxy", proxy.endpoint)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        assert make_fetcher("http://bucket.example", tmp_path, retries=0).fetch(TASKS[0]).kind == SAVED
    assert proxy.requests[0][0].startswith(f"GET http://bucket.example/{BUCKET}/{KEYS[0]} ")
