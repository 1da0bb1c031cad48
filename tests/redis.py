"""A real Redis for tests: over a directory of its own, on a free port, killed, frozen and started again."""

from __future__ import annotations

import contextlib
import functools
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.servers import HOST, free_port, wait_for

# What it acknowledges survives its being killed, and the machine.
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


class Redis:
    """One server. ``options`` as ``redis-server`` takes them; nothing is kept on disk unless they say so."""

    def __init__(self, directory: Path, *options: str, port: int | None = None) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.port = port or free_port()
        self.options = options
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its first database."""
        return f"redis://{HOST}:{self.port}"

    @property
    def command(self) -> list[str]:
        """What starts it."""
        binary = shutil.which("redis-server")
        assert binary, "redis-server is not installed: `make test` installs it, or: apt-get install redis-server"
        place = ["--bind", HOST, "--port", str(self.port), "--dir", str(self.directory), "--save", ""]
        return [binary, *place, *self.options]

    def start(self) -> None:
        """Returns when it answers, which it does once it has read its files."""
        with (self.directory / "redis.log").open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log)
        wait_for(functools.partial(speaks_redis, self.port), what=f"redis-server on {self.port}")

    def kill(self) -> None:
        """SIGKILL, in the midst of whatever it does."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(20)

    def freeze(self) -> None:
        """It answers nobody any more, and keeps its connections."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on where it was."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End it, frozen or not."""
        if self.process is not None:
            self.kill()

    def ask(self, *words: str) -> bytes:
        """What it answers to a command, as it comes; a short one."""
        with socket.create_connection((HOST, self.port), 10) as sock:
            sock.sendall(
                b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(w.encode()), w.encode()) for w in words)
            )
            return sock.recv(64 * 1024)


def speaks_redis(port: int) -> bool:
    """Whether a Redis answers there, be it that it wants a password; not while it loads its files."""
    try:
        with socket.create_connection((HOST, port), 1) as sock:
            sock.sendall(b"PING\r\n")
            return sock.recv(100).startswith((b"+PONG", b"-NOAUTH"))
    except OSError:
        return False


@contextlib.contextmanager
def redis(directory: Path, *options: str, port: int | None = None) -> Iterator[Redis]:
    """A server that runs, and doesn't outlive the block."""
    server = Redis(directory, *options, port=port)
    try:
        server.start()
        yield server
    finally:
        server.close()


@contextlib.contextmanager
def redis_cluster(directory: Path, *options: str) -> Iterator[list[Redis]]:
    """A cluster of three primaries that share the slots."""
    with contextlib.ExitStack() as stack:
        servers = []
        for number in range(3):
            clustered = (
                "--cluster-enabled",
                "yes",
                "--cluster-port",
                str(free_port()),
                "--cluster-node-timeout",
                "2000",
            )
            servers.append(stack.enter_context(redis(directory / str(number), *clustered, *options)))
        for server, (first, last) in zip(servers, ((0, 5460), (5461, 10922), (10923, 16383)), strict=True):
            server.ask("CLUSTER", "ADDSLOTSRANGE", str(first), str(last))
        for other in servers[1:]:
            servers[0].ask("CLUSTER", "MEET", HOST, str(other.port), other.options[3])
        for server in servers:
            wait_for(functools.partial(_whole, server), what="a cluster")
        yield servers


def _whole(server: Redis) -> bool:
    told = server.ask("CLUSTER", "INFO")
    return b"cluster_state:ok" in told and b"cluster_known_nodes:3" in told
