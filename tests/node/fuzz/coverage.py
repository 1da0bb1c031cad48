"""The same campaign, guided by coverage: atheris (libFuzzer) keeps what reaches new code, and builds on it.

    python -m tests.node.fuzz.coverage --runs 1000000 [--corpus DIR]

A failure is told as the other campaign tells it, with the smallest inputs. Needs atheris: ``pip install -e '.[fuzz]'``.
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.node.fuzz.grammar import Input

WATCHED = ("sfss.memcache", "sfss.scan", "sfss.node")
LONGEST = 8192  # bytes of an input
SEEDS = 300  # inputs of the grammar to begin with
KEPT = 1000  # inputs after which the store is emptied


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.node.fuzz.coverage")
    parser.add_argument("--runs", type=int, default=100_000, help="inputs (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="what libFuzzer begins with (%(default)s)")
    parser.add_argument("--corpus", type=Path, help="a directory of inputs, kept and added to; else one is made")
    parser.add_argument("--within", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.within:
        fuzz(options.within, options.corpus or options.within / "corpus", options.runs, options.seed)
    # libFuzzer ends its process without a word to anyone: somebody has to tidy up.
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-m", "tests.node.fuzz.coverage", *sys.argv[1:], "--within", directory]
        return subprocess.run(command).returncode


def fuzz(directory: Path, corpus: Path, runs: int, seed: int) -> None:
    """Fuzz, and end the process."""
    atheris = importlib.import_module("atheris")
    with atheris.instrument_imports(include=list(WATCHED)):
        from tests.node.fuzz import campaign
        from tests.node.fuzz.bench import Bench
        from tests.node.fuzz.grammar import Grammar

    bench = Bench(directory / "data")
    played: list[Input] = []

    def one(data: bytes) -> None:
        if len(played) == KEPT or not played:
            played.clear()
            bench.begin()
        given = understood(data)
        played.append(given)
        try:
            bench.play(given)
        except Exception as error:  # noqa: BLE001  raised again
            try:
                campaign.explain(error, f"atheris, seed {seed}", played, bench)
            finally:
                print(*error.__notes__, sep="\n", file=sys.stderr, flush=True)

    def mutated(data: bytes, longest: int, number: int) -> bytes:
        """Requests of the grammar, in place of these bytes or behind them; or the bytes spoilt, as libFuzzer does."""
        grammar = Grammar(str(number))
        way = number % 4
        if way == 0:
            return bytes(atheris.Mutate(data, longest))
        if way == 1:
            return data[:1] + grammar.spoilt(data[1:])[: longest - 1]
        stream = grammar.input().stream
        return (b"\0" + stream if way == 2 else data + stream)[:longest]

    corpus.mkdir(parents=True, exist_ok=True)
    for number, given in enumerate(campaign.drawn(str(seed), 0)[:SEEDS]):
        (corpus / f"seed-{number}").write_bytes(b"\0" + given.stream[: LONGEST - 1])
    arguments = [sys.argv[0], f"-runs={runs}", f"-seed={seed}", f"-max_len={LONGEST}", f"-artifact_prefix={corpus}/"]
    atheris.Setup([*arguments, str(corpus)], one, custom_mutator=mutated)
    atheris.Fuzz()


def understood(data: bytes) -> Input:
    """The input that libFuzzer's bytes stand for: the first says how the others are cut."""
    from tests.node.fuzz.grammar import Input

    stream, how = data[1:], data[0] if data else 0
    if not 0 < how < 16:
        return Input(stream, (len(stream) * how // 256,))
    return Input(stream, tuple(range(how, len(stream), how)))


if __name__ == "__main__":
    sys.exit(main())
