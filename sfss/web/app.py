"""The application: which handler answers what, what lives as long as it does, and how it is served."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler

from sfss import eventloop, logs, mirrors
from sfss.access import keys
from sfss.access.shared_rates import Buckets
from sfss.assembly import backend, create_cluster, create_members, plan, shape, short_term
from sfss.behind.front import WriteBehind
from sfss.behind.landing import Landing
from sfss.behind.worker import Worker
from sfss.cluster.background import Background
from sfss.cluster.copies import Counts
from sfss.cluster.growing import Growing
from sfss.cluster.members import Members
from sfss.cluster.replication import Cluster
from sfss.cluster.view import View
from sfss.config import Settings
from sfss.errors import ConfigError
from sfss.files import Files
from sfss.namespace_changes import NamespaceChanges
from sfss.namespaces import Namespaces
from sfss.policies import Policies
from sfss.quotas import Quotas
from sfss.registration import Registrar
from sfss.registry import Document, Registry
from sfss.standing import NOTHING, Made, Standing
from sfss.stripes import Stripes
from sfss.uploads import Uploads
from sfss.web import content_types, json_files, problems
from sfss.web.access import NEEDS, Guard
from sfss.web.access_log import AccessLog
from sfss.web.answers import SERVER
from sfss.web.connection import maker
from sfss.web.connections import Door, room
from sfss.web.files import FileHandlers, condition
from sfss.web.forwarded import TRUSTED
from sfss.web.ids import BY_ID, IdHandlers
from sfss.web.inflight import InFlight
from sfss.web.json_files import JsonHandlers
from sfss.web.listening import Listener
from sfss.web.listing import ListingHandlers
from sfss.web.metrics import MetricsHandlers
from sfss.web.namespaces import NamespaceHandlers
from sfss.web.nodes import NodeHandlers
from sfss.web.openapi import operations
from sfss.web.openapi.handlers import OpenApiHandlers
from sfss.web.pages import ASSET, MAY, PageHandlers
from sfss.web.post import PostHandlers
from sfss.web.quick import Quick
from sfss.web.sampling import Sampler
from sfss.web.status import StatusHandlers
from sfss.web.tally import Tally
from sfss.web.tls import tls_context
from sfss.web.uploads import COLLECTION, ITEM, UploadHandlers
from sfss.web.uploads import mark as mark_tus
from sfss.web.urls import clean_route, root_route
from sfss.web.watch import Watch, name

if TYPE_CHECKING:  # who has no catalogue needs no database's packages
    from sfss.catalogue.catalogue import Catalogue

log = logging.getLogger("sfss.web")

_USUAL = 4 * 1024 * 1024  # bytes, some blocks of a large file
_CUT_OFF = 0.1  # seconds for requests that are cut off to end; for aiohttp, 0 would be for ever

CATALOGUE: web.AppKey[Catalogue | None] = web.AppKey("CATALOGUE")
CLUSTER = web.AppKey("CLUSTER", Cluster)
GUARD = web.AppKey("GUARD", Guard)
IN_FLIGHT = web.AppKey("IN_FLIGHT", InFlight)
IDS = web.AppKey("IDS", IdHandlers)
MEMBERS = web.AppKey("MEMBERS", Members)
NAMESPACES = web.AppKey("NAMESPACES", Namespaces)
POLICIES = web.AppKey("POLICIES", Policies)
OPENAPI = web.AppKey("OPENAPI", OpenApiHandlers)
QUOTAS = web.AppKey("QUOTAS", Quotas)
QUICK = web.AppKey("QUICK", Quick)
REGISTRY = web.AppKey("REGISTRY", Registry)
STANDING = web.AppKey("STANDING", Standing)
STATUS = web.AppKey("STATUS", StatusHandlers)
TALLY = web.AppKey("TALLY", Tally)
WATCH = web.AppKey("WATCH", Watch)

# Seconds that a connection may wait for its next request, or for the rest of a request's head. Longer than proxies keep
# theirs (nginx: 60), so that it isn't closed just as they use it.
IDLE_TIMEOUT = 75.0


class _ServerLog(logging.LoggerAdapter[logging.Logger]):
    """aiohttp's log, in which a client's mistake is a line, and not a trace that reads like one of ours."""

    def exception(self, msg: object, *args: object, **kwargs: Any) -> None:
        error = kwargs.get("exc_info")
        if isinstance(error, HttpProcessingError):
            why = error.message.strip().partition("\n")[0].rstrip(":")
            self.info("what %s sent is not HTTP and was refused: %s", args[0] if args else "a client", keys.hidden(why))
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


def create_app(settings: Settings, tally: Tally | None = None, buckets: Buckets | None = None) -> web.Application:
    """The service as an aiohttp application; its cluster connects when it starts and disconnects when it ends.

    ``tally``: counts there, where others do beside it; and those who ask, for their rates, in ``buckets``.
    """
    tally = tally or Tally.alone()
    cluster = create_cluster(settings, Counts(tally.cells(Counts.NAMES)))
    policies = Policies(settings)
    namespaces = Namespaces(settings, are_known=not settings.namespaces.api)
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
    registry = Registry(cluster)
    members = create_members(settings, cluster)
    growing = Growing(
        cluster,
        members,
        tombstone_ttl=settings.storage.tombstone_ttl,
        share=settings.registration.share,
        upload_time=settings.limits.upload_time,
        copies_of=lambda path: policies.of(path).copies,
    )
    catalogue = create_catalogue(settings, cluster, registry) if settings.catalogue.url else None
    stripes = Stripes(cluster, settings.limits)
    landing = Landing(cluster, stripes, policies, catalogue)
    behind = WriteBehind(cluster, landing, policies, functools.partial(short_term, settings))
    quotas = Quotas(behind.everything, interval=settings.namespaces.count_interval)
    quotas.change(settings.namespace)
    files = Files(
        cluster,
        policies=policies,
        limits=settings.limits,
        background=background,
        catalogue=catalogue,
        namespaces=namespaces,
        quotas=quotas,
        behind=behind,
        stripes=stripes,
    )
    uploads = Uploads(
        cluster, files, policies=policies, limits=settings.limits, conditions=condition, catalogue=catalogue
    )
    file_handlers = FileHandlers(files, body_timeout=settings.limits.body_timeout)
    ids = IdHandlers(files, file_handlers, folder=settings.ids.folder)
    posts = PostHandlers(file_handlers, settings.post)
    needs = {**NEEDS, **ids.needs, **posts.needs}
    needs = {**needs, **json_files.needs(settings.json, needs)}
    guard = Guard(settings, needs, buckets)
    openapi = OpenApiHandlers(settings, guard, needs)
    known_keys = registry.document(keys.NAME, keys.Keys, {})
    known_keys.heed(guard.rules.learn)
    view = View(cluster)
    status = StatusHandlers(files, tally, guard, nodes=view.nodes, ring=view.ring, rebalance=growing.status)
    if catalogue is not None:
        _show(catalogue, known_keys, status)
    in_flight = InFlight()
    watch = Watch(tally, _access_log(settings, tally))
    app = web.Application(
        middlewares=[
            in_flight.middleware,
            watch.middleware,
            problems.middleware(settings.storage.retry_after),
            guard.middleware,
        ]
    )
    retry_after = settings.storage.retry_after
    quick = Quick(
        files,
        in_flight=in_flight,
        retry_after=retry_after,
        namespaces=namespaces,
        guard=guard.if_needed,
        at_root=settings.post.enabled,
    )

    def judge_by(settings: Settings) -> None:
        guard.change(settings)
        openapi.change(settings)
        quick.guard = guard.if_needed
        if settings.short_term:
            status.checks["write-behind"] = behind.faults
        if catalogue is not None:
            catalogue.mirror("namespaces", mirrors.namespace_rows(settings.namespace))

    standing = _standing(settings, members, registry, policies, namespaces, quotas, behind, judge_by)
    changes = NamespaceChanges(standing, registry, is_empty=behind.is_empty, nodes=lambda: cluster.topology.size)
    app[GUARD] = guard
    app[IN_FLIGHT] = in_flight
    app[QUICK] = quick
    app[QUOTAS] = quotas
    app[TALLY] = tally
    app[CATALOGUE] = catalogue
    app[CLUSTER] = cluster
    app[MEMBERS] = members
    app[REGISTRY] = registry
    app[NAMESPACES] = namespaces
    app[POLICIES] = policies
    app[STANDING] = standing
    app[STATUS] = status
    app[TRUSTED] = settings.trusted_proxies
    app[WATCH] = watch
    app[IDS] = ids
    app[OPENAPI] = openapi
    as_json = JsonHandlers(files, guard, settings.json, settings.limits)
    _add_routes(app, file_handlers, ListingHandlers(files), status, ids, as_json)
    _add_pages(app, PageHandlers(files, guard), settings)
    _add_nodes(app, NodeHandlers(_registrar(settings, cluster, members), guard))
    _add_metrics(app, MetricsHandlers(files, tally, quotas))
    app.router.add_get(operations.URL, openapi.get)
    _add_uploads(
        app,
        UploadHandlers(uploads, guard, body_timeout=settings.limits.body_timeout, retry_after=retry_after),
    )

    _add_namespaces(app, NamespaceHandlers(standing, changes, namespaces, quotas), file_handlers, posts)
    openapi.know(app)

    sampler = _sampler(files, tally, in_flight, uploads, watch)

    async def connected(_app: web.Application) -> AsyncIterator[None]:
        tally.begin()
        watch.start()
        await members.start()
        await registry.start()
        try:
            await _connect(settings, behind, catalogue)
        except ConfigError:
            await registry.close()
            await behind.close()
            await cluster.close()
            raise
        await standing.start()
        quotas.start()
        sampler.start()
        view.start()
        looking_after = asyncio.create_task(_look_after(background, growing, standing))
        stop = asyncio.Event()
        moving = [asyncio.create_task(work) for work in _moving(settings, behind, landing, cluster, stop)]
        yield
        looking_after.cancel()
        stop.set()
        await asyncio.gather(*moving, return_exceptions=True)
        await sampler.close()
        if background is not None:
            await background.close()
        await view.close()
        await quotas.close()
        await standing.close()
        await uploads.close()
        await files.close()
        await behind.close()
        if catalogue is not None:
            await catalogue.close()
        await registry.close()
        await growing.close()
        await members.close()
        await cluster.close()
        await watch.close()

    app.cleanup_ctx.append(connected)
    app.on_response_prepare.append(_name_server)
    app.on_response_prepare.append(guard.mark)
    app.on_response_prepare.append(mark_tus)
    app.on_response_prepare.append(name)
    return app


def _access_log(settings: Settings, tally: Tally) -> AccessLog | None:
    """The one that the settings ask for. Raises ConfigError if its file can't be written."""
    wanted, file = settings.log, settings.log.access_file
    if not wanted.access:
        return None
    as_json = wanted.format != "text" if file else logs.is_json(wanted)  # nobody sits before a file
    return AccessLog(file, as_json=as_json, tally=tally, trusted=settings.trusted_proxies)


def _sampler(files: Files, tally: Tally, in_flight: InFlight, uploads: Uploads, watch: Watch) -> Sampler:
    gauges: dict[str, Callable[[], int]] = {
        "in_flight": lambda: len(in_flight),
        "connections": lambda: watch.connections,
        "uploads": lambda: uploads.at_work,
    }
    return Sampler(files, tally, gauges)


def _show(catalogue: Catalogue, known_keys: Document[keys.Keys], status: StatusHandlers) -> None:
    """Have the catalogue show which keys there are, and /health how the catalogue is."""

    def fault() -> str | None:
        found = catalogue.status()
        return str(found["away"] or found["behind"]) or None

    known_keys.heed(lambda known: catalogue.mirror("keys", mirrors.key_rows(known)))
    status.checks["catalogue"] = fault


async def _look_after(background: Background | None, growing: Growing, standing: Standing) -> None:
    """Repair and move, once it is known which namespaces there are: none of their copies is one too many."""
    await standing.known.wait()
    growing.start()
    if background is not None:
        background.start()


async def _connect(settings: Settings, behind: WriteBehind, catalogue: Catalogue | None) -> None:
    """Begin with what is beside the nodes. Raises ConfigError if it can't ever be used."""
    await behind.change(settings.short_term)
    if catalogue is not None:
        await catalogue.start()


def _moving(
    settings: Settings, behind: WriteBehind, landing: Landing, cluster: Cluster, stop: asyncio.Event
) -> list[Coroutine[Any, Any, None]]:
    """The work of workers within a front, if there are to be some: one for each store that there is at the start."""
    if not settings.write_behind.embedded:
        return []
    workers = [Worker(store, landing, cluster, settings.write_behind) for store in behind.stores]
    return [worker.run(stop, patience=settings.server.shutdown_timeout) for worker in workers]


def _standing(
    settings: Settings,
    members: Members,
    registry: Registry,
    policies: Policies,
    namespaces: Namespaces,
    quotas: Quotas,
    behind: WriteBehind,
    judge_by: Callable[[Settings], None],
) -> Standing:
    """What has all of them go by the namespaces that there are."""
    before = shape(settings, NOTHING)

    async def adopt(settings: Settings, made: Made, are_known: bool) -> None:
        nonlocal before
        if (now := shape(settings, made)) != before:
            await members.reconfigure(plan(settings, made))
            before = now
        await behind.change(settings.short_term)
        policies.change(settings)
        judge_by(settings)
        quotas.change(settings.namespace)
        namespaces.change(settings, are_known=are_known)

    return Standing(settings, registry, adopt)


def create_catalogue(settings: Settings, cluster: Cluster, registry: Registry) -> Catalogue:
    """The catalogue that the settings name, not connected yet. Raises ConfigError."""
    try:
        from sfss.catalogue.catalogue import Catalogue
    except ImportError as error:
        raise ConfigError(
            f"catalogue.url: {error.name} isn't installed, which a catalogue needs: pip install 'sfss[catalogue]'"
        ) from None
    return Catalogue(settings.catalogue, cluster, registry, guess=content_types.guess)


def _registrar(settings: Settings, cluster: Cluster, members: Members) -> Registrar:
    return Registrar(
        cluster,
        members,
        enabled=settings.registration.enabled,
        secret=settings.registration.secret,
        probe=functools.partial(backend, settings),
    )


async def reload(app: web.Application, settings: Settings) -> None:
    """Go over to other settings, as far as ``config.RELOADED`` and the sections of lists go, while requests go on."""
    await app[STANDING].reload(settings)


async def serve(
    settings: Settings,
    sock: socket.socket,
    stop: asyncio.Event,
    ready: asyncio.Event,
    reloads: asyncio.Queue[Settings] | None = None,
    tally: Tally | None = None,
    buckets: Buckets | None = None,
) -> None:
    """Serve on a listening socket until ``stop``; then requests in flight finish, within shutdown_timeout.

    Settings that come by ``reloads`` meanwhile take the place of those before, as far as ``reload`` goes. ``tally`` and
    ``buckets`` as ``create_app`` has them.
    """
    loop = asyncio.get_running_loop()
    tls, (connections, waiting) = tls_context(settings), room()  # before anybody hears of this process
    _keep_freed_memory()
    app = create_app(settings, tally, buckets)
    runner = web.AppRunner(app, **SERVER_OPTIONS, handle_signals=False, shutdown_timeout=_CUT_OFF)
    await runner.setup()
    try:
        assert runner.server is not None
        door = Door(runner.server, connections, maker(app[QUICK], app[WATCH], **SERVER_OPTIONS))
        sock.listen(waiting)
        listener = Listener(sock, door, tls)
        eventloop.settled()
        ready.set()
        reloading = asyncio.create_task(_reload_again_and_again(app, reloads or asyncio.Queue()))
        await stop.wait()
        reloading.cancel()
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)  # of other processes that hold it, too, nobody is to come in any more
        listener.close()
        patience = settings.server.shutdown_timeout
        deadline = loop.time() + patience
        if left := await app[IN_FLIGHT].finish(patience):
            log.warning("%s requests were not done within %g s and are cut off: raise server.shutdown_timeout if they"
                        " should have more time", left, patience)  # fmt: skip
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


def _add_routes(
    app: web.Application,
    files: FileHandlers,
    listing: ListingHandlers,
    status: StatusHandlers,
    ids: IdHandlers,
    as_json: JsonHandlers,
) -> None:
    for url in ("/file", "/files"):
        resource = app.router.add_resource(url)
        resource.add_route("PUT", files.put, expect_handler=_expect)
        post = files.post if url == "/file" else as_json.post_or(ids.post)
        resource.add_route("POST", post, expect_handler=_expect)
        if url == "/file":
            resource.add_route("GET", files.get)
            resource.add_route("HEAD", files.head)
            resource.add_route("DELETE", files.delete)
        else:
            resource.add_route("GET", as_json.get_or(listing.get))
    by_id = app.router.add_resource(BY_ID)
    by_id.add_route("GET", ids.get)
    by_id.add_route("HEAD", ids.head)
    by_id.add_route("DELETE", ids.delete)
    app.router.add_get("/status", status.status)
    app.router.add_get("/health", status.health)
    app.router.add_get("/livez", status.livez)
    app.router.add_get("/readyz", status.readyz)


def _add_namespaces(
    app: web.Application, namespaces: NamespaceHandlers, files: FileHandlers, posts: PostHandlers
) -> None:
    """The last of all: what isn't another page may be in a namespace, or be a file that was posted."""
    app.router.add_get("/namespaces", namespaces.list)
    one = app.router.add_resource("/namespaces/{name}")
    one.add_route("GET", namespaces.get)
    one.add_route("PUT", namespaces.put)
    one.add_route("PATCH", namespaces.patch)
    one.add_route("DELETE", namespaces.delete)
    pages = [resource.canonical for resource in app.router.resources()]
    within = app.router.add_resource(clean_route(pages))
    methods: dict[str, Handler] = {
        "GET": files.get,
        "HEAD": files.head,
        "DELETE": files.delete,
        "PUT": files.put,
        "POST": files.post,
    }
    for method, handler in methods.items():
        otherwise = posts.handlers.get(method)
        within.add_route(method, namespaces.within(handler, otherwise), expect_handler=_expect_of(method))
    if posts.handlers:
        one = app.router.add_resource(root_route(pages))
        for method, handler in posts.handlers.items():
            one.add_route(method, handler, expect_handler=_expect_of(method))


def _add_metrics(app: web.Application, metrics: MetricsHandlers) -> None:
    app.router.add_get("/metrics", metrics.get)


def _add_uploads(app: web.Application, uploads: UploadHandlers) -> None:
    for url in (COLLECTION, f"{COLLECTION}/"):
        app.router.add_route("*", url, uploads.collection, expect_handler=_expect)
    app.router.add_route("*", ITEM, uploads.item, expect_handler=_expect)


def _add_pages(app: web.Application, pages: PageHandlers, settings: Settings) -> None:
    if not settings.dashboard.enabled:
        return
    app.router.add_get("/", pages.index)
    app.router.add_get(MAY, pages.may)
    app.router.add_get(ASSET, pages.asset)


def _add_nodes(app: web.Application, nodes: NodeHandlers) -> None:
    app.router.add_get("/nodes", nodes.get)
    app.router.add_post("/nodes", nodes.post)
    app.router.add_delete("/nodes/{name}", nodes.delete)


async def _name_server(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = SERVER


def _expect_of(method: str) -> Callable[[web.Request], Awaitable[web.StreamResponse | None]] | None:
    return _expect if method in ("PUT", "POST") else None


async def _expect(_request: web.Request) -> None:
    """Say nothing yet to ``Expect``: ``bodies.receive`` asks for the body when nothing stands against it."""
