"""What callers asked of a path and were told, and whether one register could have told it. Pure.

``check`` is exact: it looks for an order of the calls, each at some moment between its beginning and its end, in which
every answer is right (linearizability). A write whose outcome is unknown may take effect at any moment after it began,
or never. One thing more is allowed: a write that is refused because a newer version lies there is written again, so
that until it is acknowledged it may be seen, be overwritten, and be seen again.

The search goes through beginnings and ends in their order and keeps every state in which the register may be: what it
holds, which of the calls that go on have taken effect, and which of the optional effects are spent. Of two that differ
in what is spent only, the one with less can do all that the other can, so that the other is dropped.

``check_weakly`` is for quorums where a read may see an older version.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

WRITES = ("put", "create", "delete")


class WrongAnswer(AssertionError):
    """No register could have told that."""


@dataclass(eq=False)
class Call:
    """One call on a path. ``start`` and ``end`` are moments, all different.

    ``outcome``: "done"; "missing" and "exists", what it found instead; "unknown", where it failed.
    ``value``: what was written or read; None for no file. ``version``: of that, if it was told.
    """

    kind: str  # "put", "create", "delete", "read" or "stat"
    client: int
    start: int
    value: str | None = None
    end: float = math.inf
    outcome: str = "unknown"
    version: int = 0

    @property
    def writes(self) -> bool:
        return self.kind in WRITES

    @property
    def acknowledged(self) -> bool:
        return self.writes and self.outcome == "done"

    def __str__(self) -> str:
        what = f"{self.start}..{self.end} client {self.client} {self.kind} {self.outcome}"
        return f"{what} {self.value} version {self.version}"


class _State(NamedTuple):
    value: str | None
    done: frozenset[Call]  # of those that have not ended
    spent: frozenset[Call]  # optional effects


def check(calls: Sequence[Call], first: str | None = None) -> None:
    """Raises WrongAnswer if the calls on one path, which held ``first``, have no order that explains them."""
    states = {_State(first, frozenset(), frozenset())}
    open_calls: list[Call] = []
    optional: list[Call] = []
    for moment, call in _moments(calls):
        if moment == call.start:
            if call.outcome != "unknown":
                open_calls.append(call)
            if _may_matter(call, calls):
                optional.append(call)
            continue
        reached = _reach(states, open_calls, optional)
        states = {state._replace(done=state.done - {call}) for state in reached if call in state.done}
        if not states:
            raise WrongAnswer(f"no order explains {call}; before it:\n" + "\n".join(_before(calls, call)))
        open_calls.remove(call)
        if call in optional:
            optional.remove(call)
            states = {state._replace(spent=state.spent - {call}) for state in states}
        states = set(_least(states))


def _may_matter(call: Call, calls: Sequence[Call]) -> bool:
    """Whether its effect, if it has one that nobody can be sure of, may be why another was told what it was told."""
    if not call.writes or (call.kind == "create" and call.outcome != "unknown"):
        return False
    return call.kind == "delete" or any(
        other.outcome == "exists" or (other.value == call.value and not other.writes) for other in calls
    )


def _moments(calls: Iterable[Call]) -> Iterator[tuple[float, Call]]:
    ended = [(call.end, call) for call in calls if call.outcome != "unknown"]
    useful = [call for call in calls if call.writes or call.outcome != "unknown"]
    yield from sorted([*((float(call.start), call) for call in useful), *ended], key=lambda moment: moment[0])


def _reach(states: set[_State], open_calls: Sequence[Call], optional: Sequence[Call]) -> set[_State]:
    """All states that follow when calls that go on take effect."""
    reached = set(states)
    edge = list(states)
    while edge:
        following = []
        for state in edge:
            for call in open_calls:
                if call not in state.done and _allows(state.value, call):
                    value = call.value if call.acknowledged else state.value
                    following.append(_State(value, state.done | {call}, state.spent))
            for call in optional:
                changes = state.value is None if call.kind == "create" else state.value != call.value
                if changes and call not in state.spent:
                    following.append(_State(call.value, state.done, state.spent | {call}))
        edge = [state for state in set(following) if state not in reached]
        edge = [state for state in edge if not _is_dominated(state, reached)]
        reached.update(edge)
    return reached


def _allows(value: str | None, call: Call) -> bool:
    """Whether what the call was told is true of a register that holds ``value``."""
    if call.outcome == "missing":
        return value is None
    if call.outcome == "exists":
        return value is not None
    if call.kind == "create":
        return value is None
    return call.writes or value == call.value


def _is_dominated(state: _State, others: Iterable[_State]) -> bool:
    return any(
        other.value == state.value and other.done == state.done and other.spent < state.spent for other in others
    )


def _least(states: set[_State]) -> Iterator[_State]:
    return (state for state in states if not _is_dominated(state, states))


def _before(calls: Sequence[Call], wrong: Call, count: int = 30) -> list[str]:
    near = sorted((call for call in calls if call.start < wrong.end), key=lambda call: call.start)
    return [str(call) for call in near[-count:]]


def check_versions(calls: Sequence[Call]) -> None:
    """No read goes back in time, behind another read or behind an acknowledged write."""
    seen = [call for call in calls if call.version and call.outcome == "done"]
    for call in seen:
        if call.writes:
            continue
        newer = [other for other in seen if other.end < call.start and other.version > call.version]
        if newer:
            raise WrongAnswer(f"time went back:\n{newer[0]}\n{call}\nbefore it:\n" + "\n".join(_before(calls, call)))


def check_weakly(calls: Sequence[Call], final: Sequence[Call]) -> None:
    """Where reads may be old: no false 404 at any time, and at the end, with all put right, the newest is told."""
    writes = [call for call in calls if call.kind in ("put", "create") and call.outcome == "done"]
    deletions = [call for call in calls if call.kind == "delete" and call.outcome in ("done", "unknown")]
    for call in (*calls, *final):
        if call.outcome != "missing":
            continue
        for write in writes:
            if write.end < call.start and not any(
                gone.start < call.end and gone.end > write.start for gone in deletions
            ):
                raise WrongAnswer(f"false 404: {call}\nfor there was {write}")
    newest = max((write.version for write in writes), default=0)
    by_value = {call.value: call for call in calls if call.writes}
    for call in final:
        if call.outcome != "done":
            continue
        if call.version < newest:
            raise WrongAnswer(f"version {newest} was acknowledged and is lost: {call}")
        written = by_value[call.value]
        for gone in deletions:
            if gone.outcome == "done" and written.end < gone.start:
                raise WrongAnswer(f"{call} brings back what was deleted: {written}, {gone}")
