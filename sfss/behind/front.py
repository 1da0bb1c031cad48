"""Which paths have a short-term store, and what ``files.py`` sees of them all."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sfss import record
from sfss.behind.landing import Landing
from sfss.behind.listing import Page, Stored, merged
from sfss.behind.pending import Pending
from sfss.cluster.listing import Found, Listing
from sfss.cluster.replication import Cluster
from sfss.errors import Damaged, ShortTermAway
from sfss.policies import Policies
from sfss.record import Header
from sfss.told import Tasks

if TYPE_CHECKING:
    from sfss.behind.store import ShortTerm

PAGE = 5000  # that wait, in one store, and are looked at together


class WriteBehind:
    """The short-term stores that the policies name, over one cluster. ``make``: a store by its URL."""

    def __init__(
        self, cluster: Cluster, landing: Landing, policies: Policies, make: Callable[[str], ShortTerm]
    ) -> None:
        self._cluster = cluster
        self._landing = landing
        self._policies = policies
        self._make = make
        self._stores: dict[str, ShortTerm] = {}  # by URL; once there they stay, for something may wait in them
        self._tasks = Tasks()
        self._changing = asyncio.Lock()  # two at once would both make a store, and one of them be nobody's

    @property
    def stores(self) -> Sequence[ShortTerm]:
        """All of them."""
        return list(self._stores.values())

    async def change(self, urls: Iterable[str]) -> None:
        """Have a store for each of these URLs; new ones are connected to before this returns. Raises ConfigError."""
        async with self._changing:
            new = {url: self._make(url) for url in urls if url not in self._stores}
            self._stores |= new
            await asyncio.gather(*(store.start() for store in new.values()))

    async def close(self) -> None:
        """Give up what goes on, and disconnect."""
        await self._tasks.close()
        await asyncio.gather(*(store.close() for store in self._stores.values()))

    def at(self, path: str) -> Pending | None:
        """Who keeps the record of a path first; None if that is the cluster."""
        if not self._stores:
            return None
        url = self._policies.of(path).write_behind
        if not url:
            return None
        store = self._stores.get(url)
        if store is None:  # the policy has just come
            raise ShortTermAway(f"the short-term store of '{path}' is not connected to yet: try again")
        return Pending(store, self._cluster, self._landing, self._tasks, path)

    # --- lists ---

    def may_be_under(self, prefix: str) -> bool:
        """Whether paths that begin so may wait anywhere."""
        return bool(self._stores) and bool(self._under(prefix))

    async def any_under(self, prefix: str) -> bool:
        """Whether one waits that begins so. Raises ShortTermAway, Damaged."""
        page, end = await self._page(self._under(prefix), prefix, "", False)
        return bool(page) or end is not None

    def over(
        self, stored: Stored, prefix: str, after: str, *, folders: bool = False, wanted: int = 0
    ) -> AsyncGenerator[Sequence[Found], None]:
        """What ``stored`` tells from a path on, with what waits in its place: as ``Files.list``."""
        under = self._under(prefix)

        async def page(prefix: str, after: str, within: bool) -> Page:
            return await self._page(under, prefix, after, within)

        return merged(page, self._head, stored, prefix, after, folders=folders, wanted=wanted)

    def everything(self, prefix: str) -> AsyncGenerator[Sequence[Found], None]:
        """All files whose paths begin so: those on the nodes, and those that wait."""
        return self.over(self._on_nodes, prefix, "")

    async def is_empty(self, prefix: str) -> bool:
        """Whether there are none. Raises Unavailable, Unsupported, Damaged."""
        async with contextlib.aclosing(self.over(self._on_nodes, prefix, "", wanted=1)) as batches:
            async for _ in batches:
                return False
        return True

    def _on_nodes(self, prefix: str, after: str, folders: bool, wanted: int) -> AsyncGenerator[Sequence[Found], None]:
        return Listing(self._cluster.topology, prefix, after, folders=folders, wanted=wanted).batches()

    def _under(self, prefix: str) -> list[ShortTerm]:
        urls = {rules.write_behind for rules in self._policies.under(prefix)} - {""}
        return [self._stores[url] for url in sorted(urls) if url in self._stores]

    async def _page(self, stores: Sequence[ShortTerm], prefix: str, after: str, within: bool) -> Page:
        """What waits behind ``after``; and the last path up to which that is all, None if it is all there is."""
        pages = await asyncio.gather(*(store.page(prefix, after, PAGE, within=within) for store in stores))
        ends = [page[-1][0] for page in pages if len(page) == PAGE]
        end = min(ends) if ends else None
        found: dict[str, Header] = {}
        for store, (path, data) in itertools.chain.from_iterable(
            zip(itertools.repeat(store), page, strict=False) for store, page in zip(stores, pages, strict=True)
        ):
            if (end is None or path <= end) and self._policies.of(path).write_behind == store.url:
                found[path] = _header(store, path, data)
        return found, end

    async def _head(self, path: str) -> Header | None:
        """What waits at a path."""
        store = self._stores.get(self._policies.of(path).write_behind)
        data = None if store is None else await store.head(path)
        return None if store is None or data is None else _header(store, path, data)

    # --- what is shown ---

    def faults(self) -> str | None:
        """What is wrong with the stores, as far as is known without asking."""
        wrong = [f"{store.words}: {why}" for store in self.stores if (why := store.fault or store.away) is not None]
        return "; ".join(wrong) or None

    async def status(self, *, ask: bool = True) -> dict[str, dict[str, Any]]:
        """How each store is, by its address; without ``ask`` what this front knows of it anyhow."""
        stores = self.stores
        told = await asyncio.gather(*(_figures(store) for store in stores)) if ask else [{} for _ in stores]
        return {store.name: {**_known(store), **figures} for store, figures in zip(stores, told, strict=True)}


async def _figures(store: ShortTerm) -> Mapping[str, Any]:
    with contextlib.suppress(ShortTermAway):
        return (await store.figures())._asdict()
    return {}


def _known(store: ShortTerm) -> dict[str, Any]:
    about = store.about._asdict() if store.about is not None else {}
    return {"away": store.away, "fault": store.fault, "warnings": list(store.warnings), **about}


def _header(store: ShortTerm, path: str, data: bytes) -> Header:
    try:
        return record.decode_head(data)
    except Damaged as error:
        raise Damaged(f"the list isn't whole without what waits for '{path}' in {store.words}: {error}") from None
