"""Whether to try again after a failure, and when: pauses that grow, and begin anew whenever something has moved."""

from __future__ import annotations

import asyncio
import random

from sfss.client import words
from sfss.client.failures import Failure

RETRIES = 8  # in a row, without a byte moved; a minute and a half
_FIRST, _LONGEST = 0.5, 30.0  # seconds
_QUIET = 5.0  # shorter pauses aren't worth a line


class Patience:
    """For one transfer. ``retries``: how many attempts in a row may come to nothing."""

    def __init__(self, retries: int = RETRIES, name: str = "") -> None:
        self._retries = retries
        self._name = name
        self._failed = 0

    def moved(self) -> None:
        """Something has: patience begins anew."""
        self._failed = 0

    async def wait(self, failure: Failure) -> None:
        """Wait until it is time for another attempt; raises the failure where there is to be none."""
        if not failure.passing or self._failed >= self._retries:
            raise failure
        pause = min(_FIRST * 2**self._failed, _LONGEST)
        # Many clients that one break has cut off shall not come back all at once.
        pause = max(failure.pause or 0.0, pause * random.uniform(0.75, 1.25))
        self._failed += 1
        if pause > _QUIET:
            words.complain(f"{self._name + ': ' if self._name else ''}{failure}; again in {pause:.0f} s")
        await asyncio.sleep(pause)
