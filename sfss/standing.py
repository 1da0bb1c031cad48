"""Which namespaces hold now: those of the configuration, and those that were made since, through the API.

The latter are one document of the registry, which ``namespace_changes.py`` edits. Whenever it is another one, or the
configuration is, this front goes over to both together: as settings that have all of them, so that a namespace is to
every floor what a policy is. Those of the configuration win, and can be changed there only.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from msgspec.structs import replace

from sfss import config
from sfss.config import Namespace, Settings
from sfss.errors import ConfigError
from sfss.registry import Registry

log = logging.getLogger("sfss")

DOCUMENT = "namespaces"


class Made(msgspec.Struct, frozen=True):
    """The document. What a newer sfss has written that this one doesn't know is left out."""

    namespaces: tuple[dict[str, Any], ...] = ()
    # The most that any of them has ever asked for. What has no prefix keeps as many, for it was written with them.
    copies: int = 1


NOTHING = Made()

# Has a front go over to settings with all namespaces in them; of hashed keys there are so many copies, at least.
Adopt = Callable[[Settings, Made, bool], Awaitable[None]]


class Standing:
    """The settings of one front as they are at this moment."""

    def __init__(self, settings: Settings, registry: Registry, adopt: Adopt) -> None:
        """``adopt`` is called for each change."""
        self.configured = settings
        self._registry = registry
        self._adopt = adopt
        # Read also where none is to be made here: who has other settings may have made some, and they hold for all.
        self.document = registry.document(DOCUMENT, Made, NOTHING)
        self.document.heed(lambda made: self._adopt_soon())
        self.may_change = settings.namespaces.api  # whether some can be made
        self._changing = asyncio.Lock()
        self._adopting: set[asyncio.Task[None]] = set()
        self.known = asyncio.Event()  # set when this front goes by all that were made

    @property
    def are_known(self) -> bool:
        """Whether it has been read which namespaces were made; where none should be, nobody waits for that."""
        return not self.may_change or self.document.known

    @property
    def is_used(self) -> bool:
        """Whether there may be namespaces at all."""
        return self.may_change or self.configured.namespaces.required

    @property
    def made(self) -> Made:
        """Those that were made, as far as is known."""
        return self.document.value

    @property
    def settings(self) -> Settings:
        """With all namespaces."""
        return with_made(self.configured, self.made)

    def is_configured(self, name: str) -> bool:
        """Whether the configuration has it."""
        return any(namespace.name == name for namespace in self.configured.namespace)

    async def start(self) -> None:
        """Go by what the registry has read, before anybody asks. What it couldn't read yet is heeded when it can."""
        if self.are_known:
            await self.go_over()

    async def close(self) -> None:
        """Heed nothing more."""
        for task in self._adopting:
            task.cancel()
        if self._adopting:
            await asyncio.wait(self._adopting)

    async def reload(self, settings: Settings) -> None:
        """Go over to another configuration."""
        async with self._changing:
            self.configured = replace(settings, namespaces=self.configured.namespaces)
            await self._go_over()

    async def refresh(self) -> None:
        """Go by what is on the nodes now, also by what another front has changed just before. Raises Unavailable."""
        if self.may_change:
            await self._registry.refresh(self.document)
            await self.go_over()

    async def go_over(self) -> None:
        """Go by what is known of them now."""
        async with self._changing:
            await self._go_over()

    # --- within ---

    async def _go_over(self) -> None:
        await self._adopt(self.settings, self.made, self.are_known)
        if self.are_known:
            self.known.set()

    def _adopt_soon(self) -> None:
        task = asyncio.create_task(self._adopt_now())
        self._adopting.add(task)
        task.add_done_callback(self._adopting.discard)

    async def _adopt_now(self) -> None:
        async with self._changing:
            try:
                await self._go_over()
            except Exception:  # what comes next is to find somebody who listens
                log.exception("the namespaces have changed, and could not be taken over")


def with_made(settings: Settings, made: Made) -> Settings:
    """The settings with the namespaces that were made, too; those of the configuration win, and so do its policies.

    They may ask for more nodes than the settings name, since others come by themselves, or than there are by now.
    """
    taken = {namespace.name for namespace in settings.namespace}
    found = [
        namespace for fields in made.namespaces if (namespace := namespace_in(fields)) and namespace.name not in taken
    ]
    return replace(settings, namespace=(*settings.namespace, *found)) if found else settings


def namespace_in(fields: dict[str, Any]) -> Namespace | None:
    """A namespace of the document. One that a newer sfss has written and that can't be understood here is shut.

    What isn't understood may be who is kept out of it. None if not even its name is one.
    """
    try:
        return config.namespace(fields)
    except ConfigError as error:
        log.warning("a namespace can't be understood, and is shut until this sfss is as new as the others: %s", error)
    try:
        return config.namespace({"name": fields.get("name"), "enabled": False})
    except ConfigError:
        return None
