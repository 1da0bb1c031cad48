"""Whether the nodes are as many stores as the configuration names, or one of them has two names, or two spellings.

To a repair one store under two names is two nodes, each of which has what belongs on the other: it would bring nothing
home, for all is there, and remove the "stray", which is the file itself. So nothing is moved or removed while it is so.
A store tells who it is when it is connected to (``Backend.identity``), so it may be found out in the middle, too.
"""

from __future__ import annotations

from collections.abc import Iterable

from sfss.backends.base import Backend
from sfss.errors import OneStore


def one_store(nodes: Iterable[Backend]) -> list[str]:
    """In words, which of the nodes are the same store as one before them; none, if all is as it should be."""
    first: dict[str, Backend] = {}
    found = []
    for node in nodes:
        same = next((first[token] for token in node.identity if token in first), None)
        if same is not None:
            found.append(
                f"nodes {_named(same)} and {_named(node)} are one store under two names: take one of them out of the"
                " settings of all fronts, then run sfss repair. Until then nothing is repaired, moved or swept, and"
                " files may have fewer copies than it seems"
            )
        first |= dict.fromkeys(node.identity, same or node)
    return found


def check_apart(nodes: Iterable[Backend]) -> None:
    """Raises OneStore if two of them are."""
    for words in one_store(nodes):
        raise OneStore(words)


def _named(node: Backend) -> str:
    name, place = node.address.name, str(node.address)
    return name if name == place else f"{name} ({place})"
