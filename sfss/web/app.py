"""The application: which handler answers what, what lives as long as it does, and how it is served."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Mapping
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from sfss import paths
from sfss.backends.base import Backend
from sfss.backends.memcached import MemcachedNode
from sfss.cluster.background import Background
from sfss.cluster.copies import Counts
from sfss.cluster.replication import Cluster
from sfss.cluster.topology import Quorum, Topology
from sfss.config import Address, Settings
from sfss.files import Files
from sfss.policies import Policies, Rules
from sfss.record import MAX_OVERHEAD
from sfss.uploads import Uploads
from sfss.web import problems
from sfss.web.answers import SERVER
from sfss.web.connection import maker
from sfss.web.connections import BACKLOG, Door, allowed
from sfss.web.files import FileHandlers, condition
from sfss.web.forwarded import TRUSTED
from sfss.web.inflight import InFlight
from sfss.web.listing import ListingHandlers
from sfss.web.quick import Quick
from sfss.web.status import StatusHandlers
from sfss.web.tally import Tally
from sfss.web.tls import tls_context
from sfss.web.uploads import COLLECTION, ITEM, UploadHandlers

log = logging.getLogger("sfss.web")

_USUAL = 4 * 1024 * 1024  # bytes, some blocks of a large file
_CUT_OFF = 0.1  # seconds for requests that are cut off to end; for aiohttp, 0 would be for ever

CLUSTER = web.AppKey("CLUSTER", Cluster)
IN_FLIGHT = web.AppKey("IN_FLIGHT", InFlight)
POLICIES = web.AppKey("POLICIES", Policies)
QUICK = web.AppKey("QUICK", Quick)
TALLY = web.AppKey("TALLY", Tally)

# Seconds that a connection may wait for its next request, or for the rest of a request's head. Longer than proxies keep
# theirs (nginx: 60), so that it isn't closed just as they use it.
IDLE_TIMEOUT = 75.0


class _ServerLog(logging.LoggerAdapter[logging.Logger]):
    """aiohttp's log, in which a client's mistake is a line, and not a trace that reads like one of ours."""

    def exception(self, msg: object, *args: object, **kwargs: Any) -> None:
        error = kwargs.get("exc_info")
        if isinstance(error, HttpProcessingError):
            why = error.message.strip().partition("\n")[0].rstrip(":")
            self.info("what %s sent is not HTTP and was refused: %s", args[0] if args else "a client", why)
        else:
            super().exception(msg, *args, **kwargs)


# For aiohttp's server. Bodies are taken as they are sent, never unpacked: a file's bytes are the client's, and a small
# body can't swell to a large one.
SERVER_OPTIONS: Mapping[str, Any] = {
    "access_log": None,
    "auto_decompress": False,
    "keepalive_timeout": IDLE_TIMEOUT,
    "logger": _ServerLog(log, {}),
}


def create_app(settings: Settings, tally: Tally | None = None) -> web.Application:
    """The service as an aiohttp application; its cluster connects when it starts and disconnects when it ends.

    ``tally``: counts there, where others do beside it.
    """
    tally = tally or Tally.alone()
    cluster = create_cluster(settings, Counts(tally.cells(Counts.NAMES)))
    policies = Policies(settings)
    background = None
    if settings.repair.background:
        background = Background(
            cluster,
            interval=settings.repair.interval,
            share=settings.repair.share,
            tombstone_ttl=settings.storage.tombstone_ttl,
            sweep_interval=settings.repair.sweep_interval,
            upload_time=settings.limits.upload_time,
            copies_of=lambda path: policies.of(path).copies,
        )
    files = Files(cluster, policies=policies, limits=settings.limits, background=background)
    uploads = Uploads(cluster, files, policies=policies, limits=settings.limits, conditions=condition)
    status = StatusHandlers(files, tally)
    in_flight = InFlight()
    app = web.Application(
        middlewares=[in_flight.middleware, status.counting, problems.middleware(settings.storage.retry_after)]
    )
    quick = Quick(files, in_flight=in_flight, tally=tally, retry_after=settings.storage.retry_after)
    app[IN_FLIGHT] = in_flight
    app[QUICK] = quick
    app[TALLY] = tally
    app[CLUSTER] = cluster
    app[POLICIES] = policies
    app[TRUSTED] = settings.trusted_proxies
    _add_routes(app, FileHandlers(files, body_timeout=settings.limits.body_timeout), ListingHandlers(files), status)
    _add_uploads(
        app,
        UploadHandlers(uploads, body_timeout=settings.limits.body_timeout, retry_after=settings.storage.retry_after),
    )

    async def connected(_app: web.Application) -> AsyncIterator[None]:
        tally.begin()
        await cluster.start()
        if background is not None:
            background.start()
        yield
        if background is not None:
            await background.close()
        await uploads.close()
        await files.close()
        await cluster.close()

    app.cleanup_ctx.append(connected)
    app.on_response_prepare.append(_name_server)
    return app


def create_cluster(settings: Settings, counts: Counts | None = None) -> Cluster:
    """The cluster that the settings name, not connected yet."""
    return Cluster(_topology(settings, {}), tombstone_ttl=settings.storage.tombstone_ttl, counts=counts)


def _topology(settings: Settings, known: Mapping[Address, Backend]) -> Topology:
    """Nodes that are ``known`` stay as they are, connected."""

    storage = settings.storage

    def backend(address: Address) -> Backend:
        if address in known:
            return known[address]
        return MemcachedNode(
            address,
            # What was stored under a larger limit than today's must still be readable.
            largest_value=max(2 * settings.limits.record_size, 2**26) + MAX_OVERHEAD,
            connect_timeout=storage.connect_timeout,
            timeout=storage.timeout,
            retry_after=storage.retry_after,
        )

    return Topology(
        map(backend, settings.nodes),
        _quorum(settings.general),
        joining=map(backend, settings.joining),
        leaving=map(backend, settings.leaving),
        by_prefix={paths.unhashed(prefix): _quorum(rules) for prefix, rules in settings.by_prefix.items()},
    )


def _quorum(rules: Rules) -> Quorum:
    return Quorum(rules.copies, rules.write_quorum, rules.read_quorum)


async def reload(app: web.Application, settings: Settings) -> None:
    """Go over to the nodes, copies, quorums and policies of other settings, while requests go on."""
    cluster = app[CLUSTER]
    await cluster.change(_topology(settings, {node.address: node for node in cluster.topology.nodes.values()}))
    app[POLICIES].change(settings)


async def serve(
    settings: Settings,
    sock: socket.socket,
    stop: asyncio.Event,
    ready: asyncio.Event,
    reloads: asyncio.Queue[Settings] | None = None,
    tally: Tally | None = None,
) -> None:
    """Serve on a listening socket until ``stop``; then requests in flight finish, within shutdown_timeout.

    Settings that come by ``reloads`` meanwhile take the place of those before, as far as ``reload`` goes. ``tally`` as
    ``create_app`` has it.
    """
    loop = asyncio.get_running_loop()
    tls, connections = tls_context(settings), allowed()  # before anybody hears of this process
    _keep_freed_memory()
    app = create_app(settings, tally)
    runner = web.AppRunner(app, **SERVER_OPTIONS, handle_signals=False, shutdown_timeout=_CUT_OFF)
    await runner.setup()
    try:
        assert runner.server is not None
        door = Door(runner.server, connections, maker(app[QUICK], **SERVER_OPTIONS))
        listening = await loop.create_server(door, sock=sock, ssl=tls, backlog=BACKLOG)
        ready.set()
        reloading = asyncio.create_task(_reload_again_and_again(app, reloads or asyncio.Queue()))
        await stop.wait()
        reloading.cancel()
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)  # of other processes that hold it, too, nobody is to come in any more
        listening.close()
        patience = settings.server.shutdown_timeout
        deadline = loop.time() + patience
        if left := await app[IN_FLIGHT].finish(patience):
            log.warning("%s requests were not done within %g s and are cut off", left, patience)
        # Answers that are still being sent have what is left of the time. aiohttp waits for them so long twice.
        runner.server.pre_shutdown()
        await runner.server.shutdown(max((deadline - loop.time()) / 2, _CUT_OFF))
    finally:
        await runner.cleanup()


async def _reload_again_and_again(app: web.Application, reloads: asyncio.Queue[Settings]) -> None:
    while True:
        settings = await reloads.get()
        try:
            await reload(app, settings)
        except Exception:  # the next one is to find somebody who listens
            log.exception("the configuration was read again, and could not be taken over")
            continue
        todo = ", some join or leave: run sfss rebalance when all fronts know them" if settings.moving else ""
        log.info("the configuration was read again: %s nodes%s", len(app[CLUSTER].topology.nodes), todo)


def _keep_freed_memory() -> None:
    """Have glibc keep some MiB that were freed: else memory is asked of the kernel anew for each block of a large file.

    glibc takes the largest that was mapped and freed for what is usual: up to that size it takes memory from its heap,
    and leaves twice as much there unused (mallopt(3), M_MMAP_THRESHOLD). None of this is touched, and so none is used.
    """
    bytes(_USUAL)


def _add_routes(app: web.Application, files: FileHandlers, listing: ListingHandlers, status: StatusHandlers) -> None:
    for url in ("/file", "/files"):
        resource = app.router.add_resource(url)
        resource.add_route("PUT", files.put, expect_handler=_expect)
        resource.add_route("POST", files.post, expect_handler=_expect)
        if url == "/file":
            resource.add_route("GET", files.get)
            resource.add_route("HEAD", files.head)
            resource.add_route("DELETE", files.delete)
        else:
            resource.add_route("GET", listing.get)
    app.router.add_get("/status", status.status)
    app.router.add_get("/livez", status.livez)
    app.router.add_get("/readyz", status.readyz)


def _add_uploads(app: web.Application, uploads: UploadHandlers) -> None:
    for url in (COLLECTION, f"{COLLECTION}/"):
        app.router.add_route("*", url, uploads.collection, expect_handler=_expect)
    app.router.add_route("*", ITEM, uploads.item, expect_handler=_expect)


async def _name_server(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = SERVER


async def _expect(_request: web.Request) -> None:
    """Say nothing yet to ``Expect``: ``bodies.receive`` asks for the body when nothing stands against it."""
