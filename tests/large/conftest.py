"""What the campaigns with large files share: chances, and content that needs no memory."""

from __future__ import annotations

import os
import random

import pytest


@pytest.fixture
def chance() -> random.Random:
    """What a campaign draws: another one each time, printed by a failure, or of ``SFSS_LARGE_SEED``."""
    seed = os.environ.get("SFSS_LARGE_SEED") or str(random.SystemRandom().randrange(10**9))
    print(f"SFSS_LARGE_SEED={seed}")
    return random.Random(seed)
