"""A disk that fails reads: SERVER_ERROR, counted, never a miss; and all is there when it reads again."""

from __future__ import annotations

import random
import signal
from pathlib import Path

from tests.node.faults.history import FAILED, Ledger
from tests.node.faults.load import Mix, check_all, drive, holdings, reading, statistics
from tests.node.faults.nodes import children, started
from tests.node.support import PATIENCE


async def test_a_read_that_fails_is_an_error_and_no_miss(tmp_path: Path, seed: str) -> None:
    data, log = tmp_path / "data", tmp_path / "log"
    ledger = Ledger(b"c0")
    with started(data, log) as node:
        await drive(node.port(), ledger, Mix(ledger, seed), random.Random(seed), count=300)
        node.process.send_signal(signal.SIGTERM)
        assert node.process.wait(PATIENCE) == 0
    blobs = [word for file in data.glob("*.blob") for word in ("-P", str(file))]  # of these files alone
    broken = ("strace", "-f", "-qq", "-o", "/dev/null", *blobs, "-e", "trace=pread64", "-e", "inject=pread64:error=EIO")
    with started(data, log, before=broken) as node:
        errors = 0
        async with reading(node.port()) as connection:
            for key, states in ledger.now.items():
                connection.writer.write(b"get %b\r\n" % key)
                reply = await connection.reply()
                if reply.startswith(FAILED):
                    errors += 1
                else:
                    assert (reply == b"END\r\n") == (states == {None}), key
            stats = await statistics(connection)
        assert 0 < errors <= int(stats["read_errors"])
        [child] = children(node.process.pid)
        assert child == int(stats["pid"])
    with started(data, log) as node:
        check_all([ledger], await holdings(node.port()))
