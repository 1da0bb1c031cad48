"""``sfss worker`` as a service: the stores that settings name, and the workers that move what waits there.

Started by the command line; ``behind_cli.py`` has its words, and ``behind/worker.py`` what a worker does.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING

from sfss.assembly import create_parts, plan, short_term
from sfss.behind.landing import Landing
from sfss.behind.worker import Worker
from sfss.cluster.replication import Cluster
from sfss.config import Settings
from sfss.policies import Policies
from sfss.service import reload
from sfss.standing import Made, Standing
from sfss.stripes import Stripes
from sfss.web.app import create_catalogue

if TYPE_CHECKING:  # whether a Redis client is installed is found out when there is a store
    from sfss.behind.store import ShortTerm

log = logging.getLogger("sfss")


@contextlib.asynccontextmanager
async def stores(settings: Settings) -> AsyncIterator[Sequence[ShortTerm]]:
    """All short-term stores, connected. Raises ConfigError."""
    async with contextlib.AsyncExitStack() as stack:
        every = [short_term(settings, url) for url in settings.short_term]
        for store in every:
            await store.start()
            stack.push_async_callback(store.close)
        yield every


@contextlib.asynccontextmanager
async def workers(settings: Settings, read_again: Callable[[], Settings]) -> AsyncIterator[Sequence[Worker]]:
    """One for each store, with the nodes connected; on SIGHUP they take over what ``read_again`` gives.

    They go by the namespaces that were made, and make none themselves. Raises ConfigError.
    """
    cluster, members, registry = create_parts(settings)
    catalogue = create_catalogue(settings, cluster, registry) if settings.catalogue.url else None
    policies, stripes = Policies(settings), Stripes(cluster, settings.limits)

    async def adopt(settings: Settings, made: Made, are_known: bool) -> None:
        await members.reconfigure(plan(settings, made))
        policies.change(settings)

    standing = Standing(settings, registry, adopt)
    reloads: asyncio.Queue[Settings] = asyncio.Queue()
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload, settings, read_again, reloads)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(cluster.close)
        await members.start()
        stack.push_async_callback(members.close)
        await registry.start()
        stack.push_async_callback(registry.close)
        await standing.start()
        stack.push_async_callback(standing.close)
        taking_over = asyncio.create_task(_take_over(settings, reloads, standing, cluster))
        stack.callback(taking_over.cancel)
        if catalogue is not None:
            await catalogue.start()
            stack.push_async_callback(catalogue.close)
        stack.push_async_callback(stripes.close)
        every = await stack.enter_async_context(stores(settings))
        await standing.known.wait()  # how many copies files have is said by namespaces, too
        landing = Landing(cluster, stripes, policies, catalogue)
        yield [Worker(store, landing, cluster, settings.write_behind) for store in every]


async def _take_over(
    settings: Settings, reloads: asyncio.Queue[Settings], standing: Standing, cluster: Cluster
) -> None:
    """Have workers go by the configuration that they are to read again."""
    while True:
        new = await reloads.get()
        if not set(new.short_term) <= set(settings.short_term):
            log.warning("a policy has another write_behind: to move what waits there takes a restart")
        try:
            await standing.reload(new)
        except Exception:  # files are moved as before, and the next one may be all right
            log.exception("the configuration was read again, and could not be taken over")
        else:
            log.info("the configuration was read again: %s nodes", len(cluster.topology.nodes))
