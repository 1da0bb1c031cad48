"""How quick a node answers, learnt from its answers: a mean and its deviation, as TCP learns its round trips. Pure."""

from __future__ import annotations

_GAIN, _DEVIATION_GAIN = 1 / 8, 1 / 4  # RFC 6298's: how much the latest answer counts
_PATIENCE = 4.0  # deviations above the mean, as there: few answers come later
_FIRST = 0.01  # seconds, before anything is known


class Latency:
    """Of one node, in seconds."""

    __slots__ = ("_deviation", "mean")

    def __init__(self) -> None:
        self.mean = 0.0  # 0: nothing is known
        self._deviation = 0.0

    def saw(self, seconds: float) -> None:
        """An answer took so long."""
        if not self.mean:
            self.mean, self._deviation = seconds, seconds / 2
            return
        self._deviation += _DEVIATION_GAIN * (abs(seconds - self.mean) - self._deviation)
        self.mean += _GAIN * (seconds - self.mean)

    @property
    def late(self) -> float:
        """After so long an answer is later than nearly all that came of late."""
        return self.mean + _PATIENCE * self._deviation if self.mean else _FIRST
