"""What the cluster's fault campaigns share."""

from __future__ import annotations

import os
import random

import pytest


@pytest.fixture
def seed() -> str:
    """What a campaign draws its chances from: another one each time, printed by a failure, or ``SFSS_FAULTS_SEED``."""
    chosen = os.environ.get("SFSS_FAULTS_SEED") or str(random.SystemRandom().randrange(10**9))
    print(f"SFSS_FAULTS_SEED={chosen}")
    return chosen
