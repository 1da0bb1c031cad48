"""``sfss`` as a service: its port, its nodes, who serves, and what it is told by signals. Started by the command line.

With one worker this process serves. With more it has children that do (``workers.py``), and only looks after them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

import sfss
from sfss import config, eventloop, stopping
from sfss.addresses import hidden
from sfss.config import Server, Settings
from sfss.errors import ConfigError
from sfss.supervisor import DataLock, EmbeddedNodes
from sfss.web.tls import tls_context
from sfss.workers import Workers

log = logging.getLogger("sfss")

_BACKLOG = 1024  # connections that wait until somebody serves


def run(settings: Settings, read_again: Callable[[], Settings]) -> None:
    """Serve until SIGTERM or SIGINT; on SIGHUP take over what ``read_again`` gives. Raises ConfigError."""
    tls_context(settings)  # what is wrong with it, or with the nodes' URLs, should be said before anything starts
    _check_engines(settings)
    try:
        eventloop.run(_serve(settings, read_again))
    finally:
        stopping.told_enough()


async def _serve(settings: Settings, read_again: Callable[[], Settings]) -> None:
    stop = asyncio.Event()
    reloads: asyncio.Queue[Settings] = asyncio.Queue()
    stopping.set_when_told(stop)
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload, settings, read_again, reloads)
    async with contextlib.AsyncExitStack() as stack:
        if not settings.storage.nodes:
            stack.enter_context(DataLock(Path(settings.embedded.data)))
        sockets = [stack.enter_context(sock) for sock in _listen(settings.server)]
        serves_here = settings.server.workers == 1
        if not settings.storage.nodes:
            loading = asyncio.create_task(asyncio.to_thread(_load)) if serves_here else None
            await stack.enter_async_context(EmbeddedNodes(settings))
            if loading is not None:
                await loading
        await (_serve_here if serves_here else _have_served)(settings, sockets, stop, reloads)


def _load() -> None:
    """Import what serves, which takes about as long as a node to start, and can be done meanwhile."""
    import sfss.web.app  # noqa: F401


async def _serve_here(
    settings: Settings, sockets: Sequence[socket.socket], stop: asyncio.Event, reloads: asyncio.Queue[Settings]
) -> None:
    """In this process."""
    from sfss.web.app import serve  # here, for who only looks after others needs none of it

    ready = asyncio.Event()
    serving = asyncio.create_task(serve(settings, sockets[0], stop, ready, reloads))
    await asyncio.wait((serving, asyncio.create_task(ready.wait())), return_when=asyncio.FIRST_COMPLETED)
    if ready.is_set() and not stop.is_set():
        _say_where(settings, sockets[0])
    await serving


async def _have_served(
    settings: Settings, sockets: Sequence[socket.socket], stop: asyncio.Event, reloads: asyncio.Queue[Settings]
) -> None:
    """By workers."""

    async def pass_on() -> None:
        while True:
            workers.take_over(await reloads.get())

    async with Workers(settings, sockets) as workers:
        if not stop.is_set():
            _say_where(settings, sockets[0])
        passing_on = asyncio.create_task(pass_on())
        await stop.wait()
        passing_on.cancel()


def _check_engines(settings: Settings) -> None:
    """Raises ConfigError if nodes are engines whose packages aren't installed, or whose URLs can't be used."""
    if any(address.url for address in (*settings.nodes, *settings.joining, *settings.leaving)):
        from sfss.assembly import check_clients  # here, for who only looks after others needs none of it

        check_clients(settings)


def reload(settings: Settings, read_again: Callable[[], Settings], reloads: asyncio.Queue[Settings]) -> None:
    """On SIGHUP: take over from the settings what can change while sfss serves; what is wrong changes nothing."""
    try:
        new = read_again()
        if bool(new.storage.nodes) != bool(settings.storage.nodes):
            raise ConfigError("storage.nodes: between the embedded nodes and named ones only a restart can change")
        if config.is_loopback(new.server.host) and not config.is_loopback(settings.server.host):
            # Where only this machine gets in nothing need be said of access; and others get in until that restart.
            raise ConfigError("server.host: to keep others out takes a restart; what else there is to take over, too")
        taken = _taken(settings, new)
        config.check_together(taken)  # with what stays as it was
        _check_engines(taken)
    except ConfigError as error:
        log.error("the configuration was read again and is not taken, all stays as it was: %s", error)
        return
    before, after = config.as_dict(settings), config.as_dict(new)
    for section, keys in after.items():
        for key, value in keys.items():
            if value != before[section][key] and f"{section}.{key}" not in config.RELOADED:
                log.warning("%s.%s has changed: that takes a restart", section, key)
    reloads.put_nowait(taken)


def _taken(settings: Settings, new: Settings) -> Settings:
    """The settings with what can be taken over of new ones."""
    keys = {key: value for key, value in config.as_dict(new)["storage"].items() if f"storage.{key}" in config.RELOADED}
    storage = msgspec.structs.replace(settings.storage, **keys)
    return msgspec.structs.replace(
        settings, storage=storage, policy=new.policy, namespace=new.namespace, access=new.access
    )


def _listen(server: Server) -> list[socket.socket]:
    """Take the port at once, a socket for each worker: whoever comes while the nodes start waits."""
    try:
        family = socket.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM)[0][0]
        first = socket.create_server((server.host, server.port), family=family, backlog=_BACKLOG)
        return [first] if server.workers == 1 else _shared(first, server.workers)
    except (OSError, UnicodeError) as error:  # the latter: of a host that can't be the name of one
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"port {server.port} of {server.host} can't be taken ({reason}): stop what listens there, or choose another"
            " with --port"
        ) from None


def _shared(first: socket.socket, workers: int) -> list[socket.socket]:
    """So many sockets that listen where the first one did, and share what comes in.

    With SO_REUSEPORT alone a second service would get a share, too, and nobody would be told that the port is in use.
    So it was taken without; and only when it was, and by no other, it is opened for these.
    """
    with first:
        first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        address = first.getsockname()  # with the port, where any would do
        return [
            socket.create_server(address, family=first.family, backlog=_BACKLOG, reuse_port=True)
            for _ in range(workers)
        ]


def _say_where(settings: Settings, sock: socket.socket) -> None:
    host, port = sock.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    url = f"{'https' if settings.server.tls_certificate else 'http'}://{shown}:{port}"
    if settings.storage.nodes:
        where = f"nodes   {', '.join(map(hidden, settings.storage.nodes))}"
    else:
        nodes = settings.nodes
        where = (
            f"nodes   {len(nodes)} of its own, {nodes[0]} to {nodes[-1].port}\n"
            f"  data    {Path(settings.embedded.data).absolute()}"
        )
    print(
        f"sfss {sfss.__version__} serves {url}\n  {where}\n"
        f'  try     curl -F "upload_file=@README.rst" "{url}/files?path=docs/readme.rst"',
        flush=True,
    )
