"""Connections to Redis servers: opened, let in, and asked who is there. Whatever fails becomes an SfssError."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Awaitable
from typing import NamedTuple, TypeVar

from sfss.backends.base import Capabilities, Epoch
from sfss.backends.connection import Connection
from sfss.backends.resp import probe, refusals, scripts
from sfss.backends.resp.access import Access
from sfss.backends.resp.probe import Info
from sfss.backends.resp.wire import Answer, AnswerParser, Refusal, packed
from sfss.backends.stream import STOPPING, not_connected
from sfss.errors import NodeBroken, NodeError, NodeRefused
from sfss.traffic import Traffic

Line = Connection[Answer]
T = TypeVar("T")


class Known(NamedTuple):
    """What a server told when it was connected to."""

    capabilities: Capabilities
    epoch: Epoch
    store: str  # what no other server has, and which of its databases; empty if it doesn't tell
    clustered: bool
    keeps: bool  # what has no expiry it never throws away


class Dialer:
    """Opens connections to one node; times in seconds, ``largest_value`` in bytes of a record."""

    def __init__(
        self, node: str, access: Access, *, largest_value: int, connect_timeout: float, timeout: float
    ) -> None:
        self.node = node
        self.access = access
        self.largest_value = largest_value
        self.traffic = Traffic()  # of all lines
        self._connect_timeout = connect_timeout
        self._timeout = timeout

    async def line(self, host: str = "", port: int = 0) -> Line:
        """A connection to the node, or to another member of the cluster that it is in, in which we are let in.

        Raises NodeError; NodeRefused if the server says why not.
        """
        host, port = host or self.access.host, port or self.access.port
        connection: Line | None = None
        try:
            async with asyncio.timeout(self._connect_timeout):
                _, connection = await asyncio.get_running_loop().create_connection(
                    lambda: Connection(
                        self.node, AnswerParser(self.largest_value + scripts.TOKEN), self._timeout
                    ),
                    host, port, ssl=self.access.tls,
                )  # fmt: skip
                connection.traffic = self.traffic
                await self._let_in(connection)
                return connection
        except BaseException as failure:
            if connection is not None:
                connection.drop(NodeBroken, STOPPING)
            why = not_connected(failure, self._connect_timeout)
            if isinstance(failure, ssl.SSLError):
                why = f"no connection over TLS ({getattr(failure, 'verify_message', '') or failure.reason or failure})"
            elif isinstance(failure, OverflowError):  # of a port that can't be one, which a cluster has told
                why = f"can't be connected to ({failure})"
            if why is None:
                raise
            raise NodeError(self.node, why) from None

    async def known(self, line: Line) -> Known:
        """Who is there, with our scripts loaded. Raises NodeError if files can't be kept there as it is now."""
        return await self.in_time(self._known(line))

    async def in_time(self, work: Awaitable[T]) -> T:
        """What is to be done before a connection counts as one. Raises NodeError if it takes too long."""
        try:
            async with asyncio.timeout(self._connect_timeout):
                return await work
        except TimeoutError:
            raise NodeError(self.node, f"doesn't say who it is within {self._connect_timeout:g} s") from None

    async def ask(self, line: Line, *words: bytes) -> Answer:
        """The answer to a command. Raises what a refusal means, besides what ``Connection.call`` does."""
        return self._checked(await line.call(_anything, 0, packed, *words))

    async def run(self, line: Line, sha: bytes, *words: bytes) -> Answer:
        """The answer to a script, as of ``ask``."""
        answer = await line.call(_anything, 0, packed, b"EVALSHA", sha, *words)
        if isinstance(answer, Refusal) and refusals.code(answer) == "NOSCRIPT":  # somebody has flushed them
            return await self.ask(line, b"EVAL", scripts.SOURCES[sha], *words)
        return self._checked(answer)

    async def info(self, line: Line, *sections: bytes) -> Info:
        """What INFO tells, of some sections or of the usual ones."""
        texts = [await self.ask(line, b"INFO", *([section] if section else [])) for section in sections or (b"",)]
        return probe.parse_info(b"\r\n".join(text for text in texts if isinstance(text, bytes)))

    def _checked(self, answer: Answer) -> Answer:
        if isinstance(answer, Refusal):
            raise refusals.meaning(self.node, answer, self.largest_value)
        return answer

    async def _let_in(self, line: Line) -> None:
        # All at once, and looked at in their order: the first that is refused says why.
        named = line.call(_anything, 0, packed, b"CLIENT", b"SETNAME", b"sfss")  # for who looks who is there; may fail
        login = [self.ask(line, b"AUTH", *self.access.login)] if self.access.login else []
        database = [self.ask(line, b"SELECT", b"%d" % self.access.database)] if self.access.database else []
        for outcome in await asyncio.gather(*login, *database, named, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome

    async def _known(self, line: Line) -> Known:
        loading = asyncio.gather(*(self.ask(line, b"SCRIPT", b"LOAD", source) for source in scripts.SOURCES.values()))
        info, settings, _ = await asyncio.gather(self.info(line), self._settings(line), loading)
        clustered = info.get("cluster_enabled") == "1"
        if info.get("loading", "0") != "0":
            raise NodeRefused(self.node, "loads its files still")
        if info.get("role") == "slave" and not clustered:
            primary = f"{info.get('master_host')}:{info.get('master_port')}"
            raise NodeRefused(self.node, f"is a replica, which takes no writes: name its primary, {primary}")
        capabilities = probe.judge(info, settings, self.largest_value, cluster=clustered)
        keeps = not (capabilities.evicting and probe.policy(info, settings).startswith("allkeys"))
        run = info.get("run_id") or info.get("master_replid", "")  # the latter a replica has, too, which isn't used
        store = f"{run}/{self.access.database}" if run else ""
        return Known(capabilities, await self._epoch(line), store, clustered, keeps)

    async def _epoch(self, line: Line) -> Epoch:
        asked = time.monotonic()
        now = await self.ask(line, b"TIME")
        answered = time.monotonic()
        match now:
            case [bytes() as seconds, bytes() as microseconds] if (seconds + microseconds).isdigit():
                told = int(seconds) + int(microseconds) / 1e6
                return Epoch(told - (asked + answered) / 2, (answered - asked) / 2)
        raise NodeBroken(self.node, f"answers TIME with {str(now)[:100]}")

    async def _settings(self, line: Line) -> Info | None:
        """What CONFIG GET tells of some; None if it is forbidden, or isn't there."""
        asked = [line.call(_anything, 0, packed, b"CONFIG", b"GET", name.encode()) for name in probe.SETTINGS]
        found: dict[str, str] = {}
        for told in await asyncio.gather(*asked):  # each by itself: only Redis 7 takes several
            if not isinstance(told, list):
                return None
            words = [str(word, errors="replace") for word in told]
            found |= dict(zip(words[::2], words[1::2], strict=False))
        return found


def _anything(_: Answer) -> bool:
    return True
