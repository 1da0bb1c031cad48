"""Fixtures that several test modules share."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from sfss import config, eventloop
from sfss.web.app import QUICK, SERVER_OPTIONS, create_app
from sfss.web.connection import maker
from sfss.web.connections import Door
from tests.servers import HOST, Service, memcached, sfss_node

Client = TestClient[Any, Any]
Nodes = list[str]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run slow campaigns in their long form")


Loops = dict[str, Callable[[], asyncio.AbstractEventLoop]]


def pytest_asyncio_loop_factories(item: pytest.Item) -> Loops:
    """A front in a test's own loop runs on the loop that one in a process of its own has."""
    serves = "start_front" in getattr(item, "fixturenames", ())
    return {"uvloop": eventloop.new} if serves else {"asyncio": asyncio.new_event_loop}


@pytest.fixture
def long(request: pytest.FixtureRequest) -> bool:
    """Whether campaigns are to run in their long form."""
    return bool(request.config.getoption("--long"))


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """``sfss`` as `make run` runs it; shared, so leave its nodes alone."""
    with Service(tmp_path_factory.mktemp("service")) as running:
        yield running


@pytest.fixture(scope="session")
def our_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """Three ``sfss node`` processes, shared."""
    directory = tmp_path_factory.mktemp("nodes")
    with contextlib.ExitStack() as stack:
        yield [f"{HOST}:{stack.enter_context(sfss_node(directory / str(n)))[0]}" for n in range(3)]


@pytest.fixture(scope="session")
def memcached_nodes() -> Iterator[Nodes]:
    """Three real memcached, which take items of 4 MiB, shared."""
    with contextlib.ExitStack() as stack:
        yield [f"{HOST}:{stack.enter_context(memcached('-I', '4m', '-m', '1024'))}" for _ in range(3)]


@pytest.fixture(scope="session")
def small_memcached() -> Iterator[Nodes]:
    """One real memcached as Debian starts it: items of 1 MiB, shared."""
    with memcached() as port:
        yield [f"{HOST}:{port}"]


@pytest.fixture(params=["our_nodes", "memcached_nodes"])
def nodes(request: pytest.FixtureRequest) -> Nodes:
    """Each kind of node in turn."""
    found: Nodes = request.getfixturevalue(request.param)
    return found


StartFront = Callable[..., Awaitable[Client]]


class _Runner(web.AppRunner):
    """As ``sfss.web.app.serve`` runs it: what is simple goes the quick way."""

    @property
    def server(self) -> Any:
        server = super().server
        return server and Door(server, 1000, maker(self.app[QUICK], **SERVER_OPTIONS))


class _Server(TestServer):
    """As ``sfss.web.app.serve`` serves: who hangs up doesn't have his request cancelled."""

    async def _make_runner(self, **options: Any) -> web.BaseRunner:
        return _Runner(self.app, **{**options, "handler_cancellation": False})


@pytest.fixture
async def start_front() -> AsyncIterator[StartFront]:
    """Starts fronts in the test's own loop: ``await start_front(nodes, limits={...})`` gives an HTTP client of one."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(nodes: Nodes, **sections: dict[str, object]) -> Client:
            patient = {"timeout": 10.0, "connect_timeout": 5.0}  # with a machine that has other tests to run, too
            overrides = {**sections, "storage": {"nodes": nodes, **patient, **sections.get("storage", {})}}
            server = _Server(create_app(config.load(overrides=overrides)))
            await server.start_server(**SERVER_OPTIONS)
            return await stack.enter_async_context(TestClient(server))

        yield start


@pytest.fixture
async def front(nodes: Nodes, start_front: StartFront) -> Client:
    """An HTTP client of a front over each kind of node in turn."""
    return await start_front(nodes)
