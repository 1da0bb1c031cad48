"""Rounds of inputs from a seed, and what to do when one fails: find the smallest that still does, and print it.

A round begins with an empty store and is drawn from the seed and its own number, so it can be repeated alone.
"""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn, TypeVar

from tests.node.fuzz.bench import Bench
from tests.node.fuzz.grammar import Grammar, Input

T = TypeVar("T")

ROUND = 1000  # inputs
ROUNDS_A_STORE = 100  # then a new one is made, so that what RocksDB remembers of deletions doesn't add up
SHRINKING = 60.0  # seconds that the search for the smallest input may take

Play = Callable[[Sequence[Input]], None]


def seed(otherwise: str) -> str:
    """The seed to use: FUZZ_SEED of the environment, which repeats a campaign; ``new`` there asks for another one."""
    named = os.environ.get("FUZZ_SEED", otherwise)
    return str(random.SystemRandom().randrange(2**32)) if named == "new" else named


def drawn(of_seed: str, number: int) -> list[Input]:
    """The inputs of a round."""
    grammar = Grammar(f"{of_seed}/{number}")
    return [grammar.input() for _ in range(ROUND)]


def run(of_seed: str, rounds: Iterable[int], directory: Path) -> Iterator[int]:
    """Play these rounds; gives the number of inputs played, after each. Raises what the first failure raised."""
    bench: Bench | None = None
    try:
        for place, number in enumerate(rounds):
            if bench is None or place % ROUNDS_A_STORE == 0:
                if bench:
                    bench.close()
                bench = Bench(directory / f"data-{number}")
            inputs = drawn(of_seed, number)
            played = 0
            try:
                bench.begin()
                for played, given in enumerate(inputs):  # noqa: B007
                    bench.play(given)
                bench.walk()
            except BaseException as error:  # noqa: BLE001  raised again
                explain(error, f"FUZZ_SEED={of_seed} FUZZ_ROUND={number}, input {played}", inputs[: played + 1], bench)
            yield (place + 1) * ROUND
    finally:
        if bench:
            bench.close()


def replay(inputs: Iterable[Input]) -> None:
    """Play these on a bench of their own: what a failure prints can be pasted into a call of this."""
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(Path(directory) / "data")
        try:
            play_from_the_start(bench, inputs)
        finally:
            bench.close()


def play_from_the_start(bench: Bench, inputs: Iterable[Input]) -> None:
    """A round, or what is left of one."""
    bench.begin()
    for given in inputs:
        bench.play(given)
    bench.walk()


def explain(error: BaseException, where: str, inputs: Sequence[Input], bench: Bench) -> NoReturn:
    """Raise ``error`` again, and say in its notes where it was and the smallest inputs that fail so."""
    error.add_note(f"fuzzing: {where}")
    if isinstance(error, Exception):
        smallest = smaller(inputs, partial(play_from_the_start, bench), type(error))
        error.add_note(f"tests.node.fuzz.campaign.replay([{', '.join(map(repr, smallest))}])")
    else:  # a time limit, or Ctrl-C
        error.add_note(f"while this was played: {inputs[-1]!r}")
    raise error


def smaller(inputs: Sequence[Input], play: Play, kind: type[Exception]) -> Sequence[Input]:
    """Fewer and shorter inputs that fail with an exception of this kind, as far as they are soon found.

    The last alone if they don't fail again.
    """
    until = time.monotonic() + SHRINKING

    def fails(candidates: Sequence[Input]) -> bool:
        if time.monotonic() > until:
            return False
        try:
            play(candidates)
        except kind:
            return True
        except Exception:  # noqa: BLE001  another failure is not this one
            return False
        return False

    if not fails(inputs):
        return inputs[-1:]  # it depends on time or on the machine: the round's seed is all that can be told
    inputs = [*_without(inputs[:-1], lambda rest: fails([*rest, inputs[-1]])), inputs[-1]]
    for place in range(len(inputs)):
        inputs = _shorter(inputs, place, fails)
    return inputs


def _shorter(inputs: Sequence[Input], place: int, fails: Callable[[Sequence[Input]], bool]) -> Sequence[Input]:
    def put(given: Input) -> list[Input]:
        return [*inputs[:place], given, *inputs[place + 1 :]]

    best = inputs[place]
    for uncut in (
        best._replace(cuts=()),
        best._replace(wait=0.0),
        best._replace(cuts=(), wait=0.0),
        Input(best.stream),
    ):
        if uncut != best and fails(put(uncut)):
            best = uncut
    if best.cuts:
        return put(best)
    stream = _without(best.stream, lambda rest: fails(put(best._replace(stream=bytes(rest), requests=None))))
    return put(best._replace(stream=bytes(stream), requests=None))


def _without(parts: Sequence[T], fails: Callable[[Sequence[T]], bool]) -> Sequence[T]:
    """What is left of ``parts`` when nothing more can be taken out: delta debugging, by halves and then ever less."""
    size = len(parts)
    while size:
        start = 0
        while start < len(parts):
            rest = [*parts[:start], *parts[start + size :]]
            if fails(rest):
                parts = rest
            else:
                start += size
        size //= 2
    return parts
