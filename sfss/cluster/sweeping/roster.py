"""Which nodes there were: noted on each of them, so that one that is just missing from a configuration isn't forgotten.

Whoever leaves a node out of it by mistake has files that aren't found until he puts it back. A sweep would find that
nobody has their blocks on the other nodes. So it removes nothing while a node is missing that was there before, until
somebody who runs ``sfss repair`` says by that, that these are all. A node that has left in good order isn't missed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from sfss.backends.base import Backend

ROSTER = b"#sfss/nodes"


async def missed(nodes: Iterable[Backend]) -> set[str]:
    """The names that one of these nodes knows, of nodes that aren't among them. Raises NodeError."""
    nodes = list(nodes)
    known: set[str] = set()
    for found in await asyncio.gather(*(node.get(ROSTER) for node in nodes)):
        known.update((found or b"").decode(errors="replace").split())
    return known - {node.address.name for node in nodes}


async def note(nodes: Iterable[Backend], names: Iterable[str]) -> None:
    """Have these nodes know those names. Raises NodeError, OutOfSpace."""
    content = " ".join(sorted(names)).encode()

    async def tell(node: Backend) -> None:
        if await node.get(ROSTER) != content:
            await node.set(ROSTER, content)

    await asyncio.gather(*map(tell, nodes))
