"""Namespaces that are made, changed and removed while fronts serve: what may become of them, and how all are told.

Each change is one of the document of ``standing.py``, after which every front goes by it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from msgspec.structs import replace

from sfss import config
from sfss.config import Namespace
from sfss.errors import (
    BadRequest,
    ConfigError,
    NamespaceConflict,
    PreconditionFailed,
    Unavailable,
    UnknownNamespace,
)
from sfss.registry import Document, Registry
from sfss.standing import Made, Standing, namespace_in

# They would change how records are read that have no path, and are there already: an operator has to do that in steps.
BY_CONFIGURATION = ("write_quorum", "read_quorum", "write_behind")


class NamespaceChanges:
    """Changes of those that stand at a front."""

    def __init__(
        self,
        standing: Standing,
        registry: Registry,
        *,
        is_empty: Callable[[str], Awaitable[bool]],
        nodes: Callable[[], int],
    ) -> None:
        """``is_empty`` says whether no path begins so; ``nodes``: how many can have copies now."""
        self._standing = standing
        self._registry = registry
        self._is_empty = is_empty
        self._nodes = nodes

    async def put(self, fields: Mapping[str, object], *, only_new: bool = False) -> tuple[Namespace, bool]:
        """Make a namespace, or, unless it is to be ``only_new``, have it be another one; and whether it is new.

        Returns when as many nodes have it as a file that is acknowledged, and this front goes by it. Raises BadRequest,
        NamespaceConflict, PreconditionFailed, TooLarge, Unavailable.
        """
        namespace = self._checked(fields)
        is_new = False

        def edit(made: Made) -> Made:
            nonlocal is_new
            before = _found(made, namespace.name)
            is_new = before is None
            if only_new and not is_new:
                raise PreconditionFailed(f"there is a namespace '{namespace.name}' already: PATCH changes it")
            return self._with(made, before, namespace)

        await self._change(namespace.name, edit)
        return namespace, is_new

    async def patch(self, name: str, fields: Mapping[str, object]) -> Namespace:
        """Change some fields of a namespace; null puts one back to its default. Raises as ``put``; UnknownNamespace."""
        after: Namespace | None = None

        def edit(made: Made) -> Made:
            nonlocal after
            before = _found(made, name)
            if before is None:
                raise UnknownNamespace(f"there is no namespace '{name[:100]}': PUT makes one")
            merged = {**config.fields_of(before), **fields, "name": name}
            after = self._checked({key: value for key, value in merged.items() if value is not None})
            return self._with(made, before, after)

        await self._change(name, edit)
        assert after is not None
        return after

    async def remove(self, name: str) -> None:
        """Have it be no namespace any more. Raises UnknownNamespace, NamespaceConflict if it has files; Unavailable."""

        def edit(made: Made) -> Made:
            if _found(made, name) is None:
                raise UnknownNamespace(f"there is no namespace '{name[:100]}'")
            return replace(made, namespaces=tuple(it for it in made.namespaces if it.get("name") != name))

        document = self._editable(name)
        edit(await self._registry.refresh(document))
        if not await self._is_empty(f"{name}/"):
            raise NamespaceConflict(
                f"the namespace '{name}' has files: remove them first; to keep everybody out of it, disable it"
            )
        await self._change(name, edit)

    # --- within ---

    def _checked(self, fields: Mapping[str, object]) -> Namespace:
        """Raises BadRequest, NamespaceConflict."""
        given = [key for key in BY_CONFIGURATION if key in fields]
        if given:
            raise BadRequest(f"{' and '.join(given)} can be set in the configuration only: [[namespace]] or [[policy]]")
        try:
            namespace = config.namespace(fields)
            if not self._standing.is_configured(namespace.name):
                every = (*self._standing.configured.namespace, namespace)
                config.check_together(replace(self._standing.configured, namespace=every), nodes=self._nodes())
        except ConfigError as error:
            raise BadRequest(str(error)) from None
        return namespace

    def _with(self, made: Made, before: Namespace | None, after: Namespace) -> Made:
        if before is not None:
            general = self._standing.configured.general
            copies, fewer = before.over(general).copies, after.over(general).copies
            if fewer < copies:
                raise NamespaceConflict(
                    f"the namespace '{after.name}' has {copies} copies of each file, and can't go down to {fewer}: what"
                    " was deleted might come back with the copies that are too many; make another namespace"
                )
        others = (it for it in made.namespaces if it.get("name") != after.name)
        every = sorted((*others, config.fields_of(after)), key=lambda it: str(it.get("name")))
        return replace(made, namespaces=tuple(every), copies=max(made.copies, after.copies or 1))

    def _editable(self, name: str) -> Document[Made]:
        if self._standing.is_configured(name):
            raise NamespaceConflict(
                f"the namespace '{name}' is one of the configuration: change it there, and send SIGHUP"
            )
        if not self._standing.may_change:
            raise NamespaceConflict(
                "namespaces can be made in the configuration only: set namespaces.api = true to have them made here"
            )
        return self._standing.document

    async def _change(self, name: str, edit: Callable[[Made], Made]) -> None:
        document = self._editable(name)
        if not document.known:
            raise Unavailable("which namespaces there are can't be read from the nodes yet: try again")
        await self._registry.change(document, edit)
        await self._standing.go_over()  # whoever is told of it goes by it


def _found(made: Made, name: str) -> Namespace | None:
    return next((namespace_in(it) for it in made.namespaces if it.get("name") == name), None)
