"""Whatever a node, or a client of one, is sent: nothing crashes, nothing hangs, nothing grows.

A few thousand inputs, always the same ones, in ``make test``; a million of a new seed with ``--long``. FUZZ_SEED,
FUZZ_ROUND and FUZZ_ROUNDS of the environment choose others: CONTRIBUTING.rst.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import pytest

from sfss.errors import ProtocolError
from sfss.memcache import ReplyParser
from sfss.node import numbers
from tests.node.fuzz import campaign, client, sockets
from tests.node.fuzz.grammar import Input
from tests.servers import sfss_node

WARM = 4  # rounds, or batches, after which nothing may grow
MOST_BLOCKS = 5000  # of Python's memory, by which it may differ all the same
MOST_MEMORY = 16 * 1024 * 1024  # bytes, the same of a node's process

pytestmark = pytest.mark.timeout(7200)


@pytest.fixture
def seed(long: bool) -> str:
    """Printed, so that a failure shows it."""
    seed = campaign.seed(otherwise="new" if long else "1")
    print(f"FUZZ_SEED={seed}")
    return seed


# --- the node, in process ---


def test_whatever_a_node_is_sent_it_answers_in_form_and_nothing_crashes_hangs_or_grows(
    seed: str, long: bool, tmp_path: Path
) -> None:
    first, count = (int(os.environ.get(f"FUZZ_{name}", 0)) for name in ("ROUND", "ROUNDS"))
    count = count or (1000 if long else 12)
    warm = 0
    for played in campaign.run(seed, range(first, first + count), tmp_path):
        if played == WARM * campaign.ROUND:
            warm = _blocks()
    assert not warm or _blocks() - warm < MOST_BLOCKS


def _blocks() -> int:
    gc.collect()
    return sys.getallocatedblocks()


# --- the node, as a process with sockets ---


async def test_whatever_clients_do_to_a_node_it_goes_on_and_costs_no_more(
    seed: str, long: bool, tmp_path: Path
) -> None:
    with sfss_node(tmp_path / "data", *sockets.OPTIONS) as (port, process):
        rude = sockets.Rudeness(seed, port)
        for number in range(1000 if long else 10):
            inputs = await rude.batch()
            try:
                await sockets.at_rest(port)
            except Exception as error:
                error.add_note(f"after {inputs!r}")
                raise
            if number == WARM:
                before = await sockets.cost(port, process.pid)
        after = await sockets.cost(port, process.pid)
        assert process.poll() is None
    assert after.memory - before.memory < MOST_MEMORY
    assert after.sockets - before.sockets <= 2  # those that are being closed
    assert after.threads <= before.threads + 8  # that read, and are made when they are needed
    log = (tmp_path / "data.log").read_text()
    assert "failed" not in log, log
    assert "Traceback" not in log, log


# --- the client's end ---


@pytest.mark.parametrize("what", ["reply", "items", "record"])
def test_whatever_a_client_is_sent_it_is_a_value_or_the_error_for_it(what: str, seed: str, long: bool) -> None:
    replies = client.Replies(seed)
    draw: Callable[[], bytes] = getattr(replies, what)
    check: Callable[[bytes, Sequence[int]], None] = getattr(client, f"check_{what}")
    for _ in range(300_000 if long else 5000):
        stream = draw()
        cuts = replies.cuts(len(stream))
        try:
            check(stream, cuts)
        except BaseException as error:
            error.add_note(f"tests.node.fuzz.client.check_{what}({stream!r}, {cuts!r})")
            raise


# --- what was found ---


def test_a_number_with_thousands_of_noughts_in_front_is_a_number() -> None:
    """int() refuses more than 4300 digits, and a gat may be longer."""
    assert numbers.expiry(b"0" * 60_000 + b"5", 1e9) == 1_000_000_005
    assert numbers.expiry(b"-" + b"0" * 60_000 + b"5", 1e9) == numbers.expiry(b"-5", 1e9)
    assert numbers.expiry(b"0" * 60_000, 1e9) == 0
    campaign.replay([Input(b"gat %b k\r\n" % (b"0" * 5000))])


@pytest.mark.parametrize("value", [b"0" * 2**23 + b"x", b"0" * 2**23, b" " * 2**23 + b"x", b"9" * 2**23], ids=len)
def test_a_value_of_8_mib_is_found_to_be_a_number_or_none_in_one_pass(value: bytes) -> None:
    """It took 5 s, in which the node served nobody."""
    began = time.thread_time()
    assert numbers.unsigned(value) == (0 if value.endswith(b"0") else None)
    assert time.thread_time() - began < 0.5


@pytest.mark.parametrize("name", [b"same", b"n%d"])
def test_a_stats_reply_that_never_ends_is_given_up_before_it_takes_much_memory(name: bytes) -> None:
    """100,000 lines of 2 KB were taken, 210 MB; and of one name any number."""

    def listen() -> None:
        parser = ReplyParser(1024)
        for number in range(10_000):
            parser.feed(b"STAT %b %b\r\n" % (name % number if b"%" in name else name, b"x" * 2000))

    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError, match="or 8388608 bytes"):
            listen()
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


# --- the campaign itself ---


def test_what_fails_is_found_and_told_with_the_smallest_input_that_fails_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    unsigned = numbers.unsigned

    def broken(text: bytes | memoryview) -> int | None:
        if bytes(text) == b"99":
            raise OverflowError("broken")
        return unsigned(text)

    monkeypatch.setattr("sfss.node.changes.unsigned", broken)
    with pytest.raises(OverflowError) as failure:
        list(campaign.run("1", range(100), tmp_path))
    where, smallest = failure.value.__notes__
    assert where.startswith("fuzzing: FUZZ_SEED=1 FUZZ_ROUND=0, input ")
    inputs = eval(smallest.removeprefix("tests.node.fuzz.campaign.replay"))
    assert sum(len(given.stream) for given in inputs) < 60
    with pytest.raises(OverflowError):
        campaign.replay(inputs)
    monkeypatch.undo()
    campaign.replay(inputs)


def test_a_round_is_the_same_each_time() -> None:
    assert campaign.drawn("x", 3) == campaign.drawn("x", 3)
    assert campaign.drawn("x", 3) != campaign.drawn("x", 4)
    assert all(given.stream == b"".join(given.pieces) for given in campaign.drawn("x", 3))


if find_spec("atheris"):  # it has no wheel for every machine, and is of the extra "fuzz"

    def test_the_campaign_that_is_guided_by_coverage_runs() -> None:
        command = [sys.executable, "-m", "tests.node.fuzz.coverage", "--runs", "2000"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stderr
        assert "Done 2000 runs" in done.stderr
