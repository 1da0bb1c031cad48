"""The clients of ``benchmarks.cluster`` notice what is wrong; a server that lies stands in for a cluster that would."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from benchmarks.cluster_load import Clients, Files, Phase
from tests.servers import HOST, free_port


class Server:
    """Keeps every state of each file, and answers by the last one, or as it is told to."""

    def __init__(self) -> None:
        self.port = free_port()
        self.states: dict[str, list[bytes | None]] = {}
        self.lie: bytes | int | None = None  # what GET answers instead: a body, a status, or 0: it hangs up

    async def handle(self, request: web.Request) -> web.Response:
        states = self.states.setdefault(request.query["path"], [None])
        if request.method == "PUT":
            states.append(await request.read())
            return web.Response()
        if request.method == "DELETE":
            states.append(None)
            return web.Response(status=204)
        if self.lie == 0:
            assert request.transport is not None
            request.transport.abort()
        if isinstance(self.lie, int):
            return web.Response(status=self.lie)
        body = self.lie if self.lie is not None else states[-1]
        return web.Response(body=body) if body is not None else web.Response(status=404)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    app = web.Application()
    app.router.add_route("*", "/file", server.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, HOST, server.port).start()
    yield server
    await runner.cleanup()


@pytest.fixture
async def clients(server: Server) -> AsyncIterator[Clients]:
    async with Clients(Files(3), [server.port]) as clients:
        yield clients


async def test_nothing_is_wrong_where_a_server_tells_the_truth(clients: Clients) -> None:
    assert await clients.get(0) == ""
    await clients.fill()
    assert [await clients.put(0), await clients.get(0), await clients.delete(1), await clients.get(1)] == [""] * 4
    assert await clients.check() == {"": 3}


@pytest.mark.parametrize(
    ("lie", "is_called"),
    [(404, "false 404"), (504, "GET 504"), (0, "GET ServerDisconnectedError"), (b"0 1 nonsense", "wrong bytes")],
)
async def test_a_wrong_answer_is_noticed(server: Server, clients: Clients, lie: bytes | int, is_called: str) -> None:
    await clients.fill()
    server.lie = lie
    assert await clients.get(0) == is_called


async def test_a_file_in_the_place_of_another_is_noticed(server: Server, clients: Clients) -> None:
    await clients.fill()
    server.lie = server.states[clients.files.path(1)][-1]
    assert await clients.get(0) == "wrong bytes"


async def test_a_state_before_the_last_one_is_noticed(server: Server, clients: Clients) -> None:
    await clients.fill()
    states = server.states[clients.files.path(0)]
    await clients.put(0)
    server.lie = states[-2]
    assert await clients.get(0) == "old"
    await clients.delete(0)
    server.lie = states[-2]
    assert await clients.get(0) == "old"
    server.lie = None
    await clients.put(0)
    server.lie = 404
    assert await clients.get(0) == "old"


async def test_that_it_can_not_be_known_is_no_failure_where_nothing_is(server: Server, clients: Clients) -> None:
    await clients.fill()
    await clients.delete(0)
    server.lie = 504
    assert await clients.get(0) == "unsure"


def test_a_phase_gives_the_times_of_what_was_answered() -> None:
    phase = Phase()
    for number in range(100):
        phase.note("", number / 1000)
    phase.note("old", 0.1)
    phase.note("unsure", 2.0)
    phase.note("PUT 504", 2.0)
    assert phase.row() == ["103", "1: PUT 504", "1", "1", "50.0", "99.0", "100"]
