"""A network that breaks, and the client's commands as processes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.servers import HOST, Service, process, wait_for

PIECE = 64 * 1024


class Network:
    """Between a client and a service: counts bytes, slows them down, cuts connections.

    ``up`` and ``down``: bytes that passed. ``pause``: seconds between pieces of 64 KiB. ``is_away``: no connections.
    """

    def __init__(self, port: int) -> None:
        self.up = self.down = 0
        self.pause = 0.0
        self.is_away = False
        self._target = port
        self._counting = threading.Lock()
        self._cuts: list[int] = []
        self._open: list[socket.socket] = []
        self._listening = socket.create_server((HOST, 0), backlog=64)
        self.port: int = self._listening.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    @property
    def connections(self) -> int:
        """How many there are."""
        return len(self._open)

    def cut_after(self, *sizes: int) -> None:
        """Cut each of the next connections after so many bytes, in whichever direction; those behind them not."""
        self._cuts += sizes

    def cut(self) -> None:
        """Cut all connections that there are."""
        for sock in [*self._open]:
            _shut(sock, reset=True)

    def close(self) -> None:
        """No more connections; returns when all are closed."""
        _shut(self._listening)
        self._accepting.join()
        self._listening.close()
        self.cut()
        wait_for(lambda: not self._open, what="connections to close")

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                if self.is_away:
                    client.close()
                    continue
                self._open.append(client)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError), socket.create_connection((HOST, self._target), 10) as service:
            service.settimeout(None)
            self._open.append(service)
            budget = [self._cuts.pop(0) if self._cuts else 1 << 62]
            upwards = threading.Thread(target=self._pass, args=(client, service, budget, "up"))
            upwards.start()
            self._pass(service, client, budget, "down")
            upwards.join()
            self._open.remove(service)
        self._open.remove(client)

    def _pass(self, source: socket.socket, sink: socket.socket, budget: list[int], way: str) -> None:
        broken = True
        with contextlib.suppress(OSError):
            while data := source.recv(PIECE):
                with self._counting:
                    data = data[: budget[0]]
                    budget[0] -= len(data)
                sink.sendall(data)
                with self._counting:
                    setattr(self, way, getattr(self, way) + len(data))
                if not budget[0]:
                    break
                time.sleep(self.pause)
            broken = not budget[0]
        _shut(source, reset=broken)
        _shut(sink, reset=broken)


def _shut(sock: socket.socket, *, reset: bool = False) -> None:
    """Wake up who waits for it; with ``reset`` its end is not in good order."""
    with contextlib.suppress(OSError):
        if reset:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def network(service: Service) -> Iterator[Network]:
    """A network before a service."""
    between = Network(service.port)
    try:
        yield between
    finally:
        between.close()


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def command(port: int, *arguments: str | Path) -> list[str]:
    name, *others = map(str, arguments)
    return [sys.executable, "-m", "sfss", name, "--port", str(port), *others]


def environment(state: Path) -> dict[str, str]:
    """That of a user whose notes lie in ``state``."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("SFSS_")}
    return {**kept, "XDG_STATE_HOME": str(state), "LC_ALL": "C.UTF-8"}


class User:
    """Somebody at a shell, in a directory of their own."""

    def __init__(self, directory: Path, port: int) -> None:
        self.directory = directory / "here"
        self.state = directory / "state"
        self.port = port
        self.directory.mkdir()

    def run(
        self, *arguments: str | Path, input: bytes = b"", within: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[bytes]:
        """Run an sfss command to its end; as an argument of the command ``within``, if there is one."""
        done = subprocess.run(
            [*within, *command(self.port, *arguments)], cwd=self.directory, env=environment(self.state), input=input,
            capture_output=True, timeout=60,
        )  # fmt: skip
        assert b"Traceback" not in done.stderr, done.stderr.decode()
        return done

    def succeed(self, *arguments: str | Path, input: bytes = b"") -> str:
        """The same; what it said."""
        done = self.run(*arguments, input=input)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    @contextlib.contextmanager
    def running(self, *arguments: str | Path) -> Iterator[subprocess.Popen[bytes]]:
        """An sfss command that is under way."""
        with process(
            command(self.port, *arguments), cwd=self.directory, env=environment(self.state), stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as child:  # fmt: skip
            yield child

    def names(self) -> list[str]:
        """All that is in the directory, the names of files, sorted."""
        return sorted(str(path.relative_to(self.directory)) for path in self.directory.rglob("*") if not path.is_dir())

    def notes(self) -> list[Path]:
        """Of uploads that may go on."""
        return sorted(self.state.glob("sfss/uploads/*"))


def ended(child: subprocess.Popen[bytes]) -> tuple[int, str]:
    """The exit status and what was said on standard error."""
    _, stderr = child.communicate(timeout=60)
    return child.returncode, stderr.decode()


def passed(between: Network, size: int) -> None:
    """Wait until so many bytes have passed, one way or the other."""
    wait_for(lambda: max(between.up, between.down) >= size, what=f"{size} bytes")


def store(service: Service, path: str, data: bytes) -> None:
    with urllib.request.urlopen(urllib.request.Request(_url(service, path), data, method="PUT"), timeout=30) as answer:
        assert answer.status == 200


def stored(service: Service, path: str) -> bytes | None:
    """What the service has at a path; by another hand than the client's."""
    try:
        with urllib.request.urlopen(_url(service, path), timeout=30) as answer:
            data: bytes = answer.read()
            return data
    except urllib.error.HTTPError as error:
        assert error.code == 404
        return None


def _url(service: Service, path: str) -> str:
    return f"{service.url}/file?path={urllib.parse.quote(path, safe='')}"
