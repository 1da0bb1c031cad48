"""Fronts, workers, the short-term store and nodes are killed at any moment: nothing that was acknowledged is lost.

Nor when nodes have no room, and what was answered by 507 then never comes.

Nor is anything told that one register for each path wouldn't tell: no old version, no file twice. The store syncs
always. A little by default, more with ``--long``; ``SFSS_FAULTS_SECONDS`` and ``SFSS_FAULTS_SEED`` as in
``tests/cluster/faults``.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.behind.faults.campaign import campaign
from tests.cluster.faults.history import check

SHORT, LONG = 5.0, 240.0  # seconds of disturbances

pytestmark = pytest.mark.timeout(3600)


@pytest.mark.parametrize(
    "kinds",
    [
        ("front", "worker", "store", "sleeping worker"),
        ("worker", "store", "node"),
        ("sleeping worker", "sleeping front", "sleeping store"),
        ("full", "full", "full", "front", "worker", "sleeping worker", "sleeping front"),
    ],
    ids=["fronts, workers and the store", "nodes, too", "all of them sleep", "nodes are full"],
)
async def test_whoever_is_killed_clients_see_one_register_and_all_comes_onto_the_nodes(
    tmp_path: Path, long: bool, kinds: tuple[str, ...]
) -> None:
    seed = os.environ.get("SFSS_FAULTS_SEED") or str(random.SystemRandom().randrange(10**9))
    print(f"SFSS_FAULTS_SEED={seed}")
    seconds = float(os.environ.get("SFSS_FAULTS_SECONDS") or (LONG if long else SHORT))
    async with campaign(tmp_path, seed) as made:
        async with made.load():
            await made.disturb(seconds, kinds)
        await made.lists_what_is_read()
        await made.moved()
        await made.lists_what_is_read()
        made.store.kill()  # what is on the nodes needs it no more; the fronts can't know that
        made.store.start()
        await made.read_all()
    print(dict(made.killed), dict(made.told))
    assert sum(made.killed.values()) >= 2
    for calls in made.histories.values():
        check(calls)
