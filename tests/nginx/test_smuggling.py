"""Requests that two servers could read differently: neither nginx nor a front takes one for two, or two for one."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable

import pytest

from tests.nginx.server import Nginx
from tests.servers import HOST, Service

SECOND = b"GET /file?path=smuggled HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
PUT = b"PUT /file?path=smuggling HTTP/1.1\r\nHost: x\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"


def length(number: int) -> bytes:
    return b"Content-Length: %d\r\n" % number


AMBIGUOUS = {
    "two lengths": PUT + length(0) + length(len(SECOND)) + b"\r\n" + SECOND,
    "two lengths in one": PUT + b"Content-Length: 0, %d\r\n\r\n" % len(SECOND) + SECOND,
    "length and chunked": PUT + length(5 + len(SECOND)) + CHUNKED + b"\r\n0\r\n\r\n" + SECOND,
    "chunked and length": PUT + CHUNKED + length(5 + len(SECOND)) + b"\r\n0\r\n\r\n" + SECOND,
    "a space before the colon": PUT + b"Content-Length : %d\r\n\r\n" % len(SECOND) + SECOND,
    "a space before the other colon": PUT + length(len(SECOND)) + b"Transfer-Encoding : chunked\r\n\r\n" + SECOND,
    "a folded line": PUT + b"X: a\r\n Content-Length: %d\r\n\r\n" % len(SECOND) + SECOND,
    "a length with a sign": PUT + b"Content-Length: +%d\r\n\r\n" % len(SECOND) + SECOND,
    "a length in hex": PUT + b"Content-Length: 0x%x\r\n\r\n" % len(SECOND) + SECOND,
    "an unknown coding": PUT + b"Transfer-Encoding: xchunked\r\n" + length(len(SECOND)) + b"\r\n" + SECOND,
    "chunked, but not last": PUT + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + SECOND,
    "chunked twice": PUT + CHUNKED + CHUNKED + b"\r\n0\r\n\r\n" + SECOND,
    "a control character in a name": PUT + b"X\x01: a\r\n" + length(len(SECOND)) + b"\r\n" + SECOND,
    "a NUL in a value": PUT + b"X: a\0b\r\n" + length(len(SECOND)) + b"\r\n" + SECOND,
    "a chunk size with a sign": PUT + CHUNKED + b"\r\n+0\r\n\r\n" + SECOND,
    "a chunk size in 0x": PUT + CHUNKED + b"\r\n0x0\r\n\r\n" + SECOND,
    "a chunk that is too long": PUT + CHUNKED + b"\r\n3\r\nabcX\r\n0\r\n\r\n" + SECOND,
    "a chunk size beyond 64 bits": PUT + CHUNKED + b"\r\n10000000000000000\r\n" + SECOND,
    "HTTP/1.0 and chunked": PUT.replace(b"1.1", b"1.0") + CHUNKED + length(0) + b"\r\n0\r\n\r\n" + SECOND,
}
# What RFC 9112 lets a server put up with, and both do in the same way, or refuse.
TOLERATED = {
    "bare line feeds": PUT.replace(b"\r\n", b"\n") + b"Content-Length: %d\n\n" % len(SECOND) + SECOND,
    "a bare line feed before the length": PUT + b"X: a\nContent-Length: %d\r\n\r\n" % len(SECOND) + SECOND,
    "a bare carriage return": PUT + b"X: a\rContent-Length: %d\r\n\r\n" % len(SECOND) + SECOND,
    "the same length twice": PUT + length(len(SECOND)) + length(len(SECOND)) + b"\r\n" + SECOND,
    "a chunk extension": PUT + CHUNKED + b"\r\n5;a=b\r\nabcde\r\n0\r\n\r\n",
    "bare line feeds in chunks": PUT + CHUNKED + b"\r\n5\nabcde\n0\n\n",
}


def answers_to(connect: Callable[[], socket.socket], data: bytes) -> bytes:
    """All that comes back."""
    received = b""
    with connect() as sock, contextlib.suppress(OSError):
        sock.settimeout(3)
        sock.sendall(data)
        while piece := sock.recv(65536):
            received += piece
    return received


def statuses(received: bytes) -> list[bytes]:
    return [part[:3] for part in received.split(b"HTTP/1.1 ")[1:]]


@pytest.fixture
def doors(nginx: Nginx, front: Service) -> list[Callable[[], socket.socket]]:
    nginx.put("/file?path=smuggled", b"the second request was answered")
    return [nginx.connect, lambda: socket.create_connection((HOST, front.port), 10)]


@pytest.mark.parametrize("kind", AMBIGUOUS)
def test_an_ambiguous_request_is_refused_and_what_is_behind_it_not_answered(
    doors: list[Callable[[], socket.socket]], kind: str
) -> None:
    for connect in doors:
        received = answers_to(connect, AMBIGUOUS[kind])
        assert b"the second request" not in received, received
        assert len(received.split(b"HTTP/1.1 ")) <= 2
        assert received.split(b" ")[1:2] in ([b"400"], [b"501"], []), received


@pytest.mark.parametrize("kind", TOLERATED)
def test_a_sloppy_request_is_one_request_or_refused(doors: list[Callable[[], socket.socket]], kind: str) -> None:
    for connect in doors:
        received = answers_to(connect, TOLERATED[kind])
        assert b"the second request" not in received, received
        assert len(received.split(b"HTTP/1.1 ")) <= 2
