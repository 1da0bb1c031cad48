"""Which namespace a path is in, and whether that lets anybody in. Pure.

A namespace is the first segment of a path. What it says of copies, pieces and sizes are rules as any policy's
(``policies.py``); here is what only a namespace has.
"""

from __future__ import annotations

from collections.abc import Callable

from sfss.config import Namespace as Namespace
from sfss.config import Settings
from sfss.errors import NamespaceDisabled, Unavailable, UnknownNamespace


class Namespaces:
    """The namespaces of one front, at this moment."""

    def __init__(self, settings: Settings, *, are_known: bool = True) -> None:
        """As ``change``."""
        self.change(settings, are_known=are_known)

    def change(self, settings: Settings, *, are_known: bool) -> None:
        """From now on those of these settings. ``are_known``: there are no others, that can't be read yet."""
        self._by_name = {namespace.name: namespace for namespace in settings.namespace}
        self._required = settings.namespaces.required
        self.are_known = are_known
        self.names = frozenset(name.encode() for name in self._by_name)  # as they stand in URLs
        is_closed = self._required or not are_known or not all(it.enabled for it in self._by_name.values())
        # What raises for a path that isn't to be touched; None where all are open, so that nobody asks in vain.
        self.gate: Callable[[str], None] | None = self._check if is_closed else None

    def of(self, path: str) -> Namespace | None:
        """The one that a path is in; None if it is in none."""
        name, slash, _ = path.partition("/")
        return self._by_name.get(name) if slash else None

    def named(self, name: str) -> Namespace | None:
        """The one of that name."""
        return self._by_name.get(name)

    def all(self) -> list[Namespace]:
        """Every one, by name."""
        return sorted(self._by_name.values(), key=lambda namespace: namespace.name)

    def check_prefix(self, prefix: str) -> None:
        """Raises if what begins so can't be listed: as ``gate`` does of a path, where it is clear which namespace."""
        if self.gate is not None and ("/" in prefix or not self.are_known):
            self.gate(prefix)

    def is_open(self, path: str) -> bool:
        """Whether ``gate`` lets it pass."""
        namespace = self.of(path)
        return not self._required if namespace is None else namespace.enabled

    def check_known(self) -> None:
        """Raises Unavailable if there may be others."""
        if not self.are_known:
            raise Unavailable("which namespaces there are can't be read from the nodes yet: try again")

    def check_there(self, name: str) -> None:
        """Raises UnknownNamespace if there is none of that name; Unavailable if that isn't known yet."""
        if name in self._by_name:
            return
        self.check_known()
        raise UnknownNamespace(f"there is no namespace '{name[:100]}': GET /namespaces tells which there are")

    def _check(self, path: str) -> None:
        """Raises NamespaceDisabled, UnknownNamespace, Unavailable."""
        namespace = self.of(path)
        if namespace is not None:
            if not namespace.enabled:
                raise NamespaceDisabled(namespace.name)
            return
        name, slash, _ = path.partition("/")
        if not self.are_known or (self._required and slash):
            self.check_there(name)
        if self._required:
            raise UnknownNamespace(
                f"'{path[:100]}' is in no namespace, and only those have files: NAMESPACE/{path[:100]}"
            )
