"""Whoever waits at the door is let in, many in one turn of the loop; and when nothing is left for one more, later."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Callable

import pytest

from sfss.web import listening
from sfss.web.listening import Listener
from tests.servers import HOST

MANY = 200


pytestmark = pytest.mark.as_served


@pytest.fixture
def came() -> list[str]:
    return []


class Noting(asyncio.Protocol):
    """Notes the port of each client that is let in."""

    def __init__(self, came: list[str]) -> None:
        self._came = came

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._came.append(str(transport.get_extra_info("peername")[1]))


class Poor(socket.socket):
    """Has no descriptor left for the first who comes."""

    refused = 0

    def accept(self) -> tuple[socket.socket, object]:
        if not self.refused:
            self.refused += 1
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return super().accept()


async def until(condition: Callable[[], object]) -> int:
    """How many turns of the loop it took."""
    turns = 0
    while not condition():
        assert turns < 100_000
        await asyncio.sleep(0)
        turns += 1
    return turns


async def test_a_crowd_is_let_in_in_a_few_turns(came: list[str]) -> None:
    with socket.create_server((HOST, 0), backlog=MANY) as sock:
        clients = [socket.create_connection(sock.getsockname()) for _ in range(MANY)]
        listener = Listener(sock, lambda: Noting(came), None)
        assert await until(lambda: len(came) == MANY) < 10
        assert sorted(came) == sorted(str(client.getsockname()[1]) for client in clients)
        listener.close()
        for client in clients:
            client.close()


async def test_behind_close_nobody_is_let_in(came: list[str]) -> None:
    with socket.create_server((HOST, 0)) as sock, sock.dup() as held:
        listener = Listener(sock, lambda: Noting(came), None)
        listener.close()
        with socket.create_connection(held.getsockname()):
            await asyncio.sleep(0.1)
        assert came == []


async def test_without_descriptors_it_pauses_says_so_once_and_goes_on(
    came: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(listening, "_PAUSE", 0.05)
    with Poor(socket.AF_INET, socket.SOCK_STREAM) as sock, caplog.at_level(logging.ERROR):
        sock.bind((HOST, 0))
        sock.listen()
        listener = Listener(sock, lambda: Noting(came), None)
        with socket.create_connection(sock.getsockname()):
            await until(lambda: came)
        listener.close()
    assert [record.getMessage() for record in caplog.records] == [
        "nobody is let in for 0.05 s: [Errno 24] Too many open files"
    ]
