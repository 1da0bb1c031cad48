"""What the cluster's fault campaigns share."""

from __future__ import annotations

import os
import random

import pytest

from sfss.cluster import background, rounds

SHORT, LONG = 1.2, 240.0  # seconds of disturbances; SFSS_FAULTS_SECONDS for others


@pytest.fixture
def seed() -> str:
    """What a campaign draws its chances from: another one each time, printed by a failure, or ``SFSS_FAULTS_SEED``."""
    chosen = os.environ.get("SFSS_FAULTS_SEED") or str(random.SystemRandom().randrange(10**9))
    print(f"SFSS_FAULTS_SEED={chosen}")
    return chosen


@pytest.fixture
def seconds(long: bool) -> float:
    """How long a campaign goes on."""
    return float(os.environ.get("SFSS_FAULTS_SECONDS") or (LONG if long else SHORT))


@pytest.fixture
def quick_repair(monkeypatch: pytest.MonkeyPatch) -> None:
    """Background repair looks often, as one that runs for days needn't."""
    monkeypatch.setattr(rounds, "LOOK", 0.2)
    monkeypatch.setattr(background, "HEAL", 0.1)
    monkeypatch.setattr(rounds, "LEASE", 2.0)
    monkeypatch.setattr(rounds, "AGAIN", 0.5)
