"""What tests of the HTTP face share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from tests.conftest import Client, Nodes, StartFront
from tests.web.guarded import SECRET, Front, Start
from tests.web.raw import Raw


@pytest.fixture
async def start_guarded(start_front: StartFront, our_nodes: Nodes) -> AsyncIterator[Start]:
    """Starts a front with policies, settings of [access], and other ``sections``."""
    fronts: list[Front] = []

    async def start(*policy: dict[str, Any], sections: dict[str, dict[str, Any]] | None = None, **access: Any) -> Front:
        told: dict[str, Any] = {"access": {"anonymous": [], "signing_secrets": [SECRET], **access}, "policy": policy}
        fronts.append(Front(await start_front(our_nodes, **told, **(sections or {})), our_nodes))
        return fronts[-1]

    yield start
    for front in fronts:
        await front.forget_keys()


Connect = Callable[[Client], Awaitable[Raw]]


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Opens connections to fronts, which are closed in the end."""
    opened: list[Raw] = []

    async def to(front: Client) -> Raw:
        opened.append(await Raw.to(front))
        return opened[-1]

    yield to
    for client in opened:
        client.close()
