"""What can go wrong for a client, each kind with the exit status that a script sees.

::

    Failure          one line that says what went wrong and, where it can, what to do
    ├── Refused      the service answered, and the answer is an error
    ├── Broken       no answer, or it broke off: the same call may succeed later
    ├── Missing      there is nothing by that name
    └── Different    bytes are not those that they should be
"""

from __future__ import annotations

from collections.abc import Iterable

from sfss.errors import SfssError

DONE, FAILED, WRONG_USAGE, MISSING, TRY_AGAIN, DIFFERENT, INTERRUPTED = 0, 1, 2, 3, 4, 5, 130

EXIT_STATUSES = """\
exit status: 0 all is done and checked; 1 something failed, standard error says what; 2 wrong usage; 3 there is no such
file; 4 the service or a node is away or the connection broke: the same command may succeed later, and goes on where it
was; 5 the bytes are not those that they should be; 130 interrupted. If several files fail for different reasons: 1.
"""

_NOT_FOUND = 404
# What passes: timeouts, an upload that another request still holds, too many requests, nodes or the service away.
_PASSING = {408, 423, 429, 502, 503, 504}
_LASTING = {"urn:sfss:damaged"}  # though its status is one of these


class Failure(SfssError):
    """What went wrong, in one line for the user."""

    exit_status = FAILED
    passing = False  # whether the same call may succeed later
    pause: float | None = None  # seconds after which the service wants to be asked again


class Refused(Failure):
    """The service's answer is an error; ``status`` is its HTTP status, ``kind`` the problem's type or ""."""

    def __init__(self, status: int, text: str, kind: str = "", pause: float | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.pause = pause
        self.passing = status in _PASSING and kind not in _LASTING
        if status == _NOT_FOUND:
            self.exit_status = MISSING
        elif self.passing:
            self.exit_status = TRY_AGAIN


class Broken(Failure):
    """There was no answer, or it broke off."""

    exit_status = TRY_AGAIN
    passing = True


class Missing(Failure):
    """There is nothing by that name."""

    exit_status = MISSING


class Different(Failure):
    """What arrived is not what went."""

    exit_status = DIFFERENT


def common_status(statuses: Iterable[int]) -> int:
    """The exit status for several things, each with its own: DONE for none, FAILED if they differ."""
    different = set(statuses)
    return different.pop() if len(different) == 1 else FAILED if different else DONE
