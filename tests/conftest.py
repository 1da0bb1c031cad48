"""Fixtures that several test modules share."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from sfss import config, eventloop
from sfss.web.app import QUICK, SERVER_OPTIONS, WATCH, create_app
from sfss.web.connection import maker
from sfss.web.connections import Door
from tests.postgres import Postgres, migrate, postgres
from tests.servers import HOST, PATIENT, Service, empty, memcached, sfss_node
from tests.web.openapi.witness import Witness

Client = TestClient[Any, Any]
Nodes = list[str]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run slow campaigns in their long form")


def pytest_configure() -> None:
    """What hundreds of processes would do again and again as they start, and no test needs."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # the first of them compiles sfss, the others read that
    # aiohttp reads, at its import, whom the machine trusts: a quarter of a front's start. Here nobody signs but tests.
    os.environ |= {"SSL_CERT_FILE": os.devnull, "SSL_CERT_DIR": os.devnull}
    # A shell starts what is to run in its background deaf to Ctrl-C, and so would be what is started here.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What may take longest begins first, or everybody would wait for it at the end."""
    items.sort(key=_patience, reverse=True)


def _patience(item: pytest.Item) -> float:
    """Seconds that a test may take, as it says itself; those that say nothing are quick."""
    mark = item.get_closest_marker("timeout")
    return float(mark.args[0]) if mark is not None and mark.args else 0.0


def pytest_collection_finish() -> None:
    """Thousands of tests, and what they import, stay until the end: no search for garbage need look at them."""
    gc.collect()
    gc.freeze()


def pytest_xdist_auto_num_workers() -> int:
    """For ``-n auto``: half as many again as there are cores. Tests wait for servers about as long as they compute."""
    cores = len(os.sched_getaffinity(0))
    return cores + (cores + 1) // 2


Loops = dict[str, Callable[[], asyncio.AbstractEventLoop]]


def pytest_asyncio_loop_factories(item: pytest.Item) -> Loops:
    """A front in a test's own loop, or a part of one, runs on the loop that one in a process of its own has."""
    serves = "start_front" in getattr(item, "fixturenames", ()) or item.get_closest_marker("as_served")
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
    with three_nodes(tmp_path_factory.mktemp("nodes")) as nodes:
        yield nodes


@contextlib.contextmanager
def three_nodes(directory: Path) -> Iterator[Nodes]:
    """Of their own, for tests that put there what every front heeds."""
    with contextlib.ExitStack() as stack:
        yield [f"{HOST}:{stack.enter_context(sfss_node(directory / str(n)))[0]}" for n in range(3)]


@pytest.fixture(scope="session")
def _spare_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """Three that serve one test after the other, see ``empty_nodes``."""
    directory = tmp_path_factory.mktemp("spare")
    with contextlib.ExitStack() as stack:
        running = [stack.enter_context(sfss_node(directory / str(n), "--durability", "os")) for n in range(3)]
        yield [f"{HOST}:{port}" for port, _ in running]


@pytest.fixture
def empty_nodes(_spare_nodes: Nodes) -> Nodes:
    """Three ``sfss node`` with nothing on them, for this test; leave them running."""
    for node in _spare_nodes:
        empty(node)
    return _spare_nodes


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


@pytest.fixture(scope="session")
def shared_postgres() -> Iterator[Postgres]:
    """For tests that leave it alone."""
    with postgres() as server:
        yield server


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    """For tests that don't."""
    with postgres() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_url(shared_postgres: Postgres) -> Iterator[str]:
    """Of a database there that has the tables of a node, shared."""
    with shared_postgres.database() as url:
        migrate(url, "--partitions", "16")
        yield url


@pytest.fixture(scope="session")
def postgres_nodes(shared_postgres: Postgres) -> Iterator[Nodes]:
    """Three databases there, each a node, shared."""
    with contextlib.ExitStack() as stack:
        urls = [stack.enter_context(shared_postgres.database()) for _ in range(3)]
        for url in urls:
            migrate(url, "--partitions", "16")
        yield urls


@pytest.fixture(params=["our_nodes", "memcached_nodes"])
def nodes(request: pytest.FixtureRequest) -> Nodes:
    """Each kind of node in turn."""
    found: Nodes = request.getfixturevalue(request.param)
    return found


StartFront = Callable[..., Awaitable[Client]]

# A walk marks its nodes (sfss/cluster/wholeness.py): those that tests share, if one takes so long that a walk begins,
# some eight seconds. Beside them the others that another test has would count as nodes that were emptied.
_LEAVES_NO_MARKS = {"background": False}


class _Runner(web.AppRunner):
    """As ``sfss.web.app.serve`` runs it: what is simple goes the quick way."""

    @property
    def server(self) -> Any:
        server = super().server
        return server and Door(server, 1000, maker(self.app[QUICK], self.app[WATCH], **SERVER_OPTIONS))


class _Server(TestServer):
    """As ``sfss.web.app.serve`` serves: who hangs up doesn't have his request cancelled."""

    async def _make_runner(self, **options: Any) -> web.BaseRunner:
        return _Runner(self.app, **{**options, "handler_cancellation": False})


@pytest.fixture
async def start_front() -> AsyncIterator[StartFront]:
    """Starts fronts in the test's own loop: ``await start_front(nodes, limits={...})`` gives an HTTP client of one.

    Whatever one of them answers has to be in its document (``/openapi.json``). One that is to look after its nodes,
    which are its own then, is told so: ``repair={}``.
    """
    witnesses: list[Witness] = []
    async with contextlib.AsyncExitStack() as stack:

        async def start(nodes: Nodes, **sections: dict[str, object]) -> Client:
            storage = {"nodes": nodes, **PATIENT, **sections.get("storage", {})}
            overrides = {"repair": _LEAVES_NO_MARKS, **sections, "storage": storage}
            app = create_app(config.load(overrides=overrides))
            witnesses.append(Witness(app))
            server = _Server(app)
            await server.start_server(**SERVER_OPTIONS)
            return await stack.enter_async_context(TestClient(server))

        yield start
    said_wrongly = {line for witness in witnesses for line in witness.found}
    assert not said_wrongly, f"/openapi.json isn't true: {said_wrongly}"


@pytest.fixture
async def front(nodes: Nodes, start_front: StartFront) -> Client:
    """An HTTP client of a front over each kind of node in turn."""
    return await start_front(nodes)
