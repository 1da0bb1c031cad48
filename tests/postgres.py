"""A real PostgreSQL for tests: made in a directory of its own, on a free port, killed, frozen and started again."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.servers import HOST, free_port, wait_for

ROOT = Path(__file__).parent.parent

USER = "sfss"
# Debian makes that user with the package; PostgreSQL refuses to run as root.
_SYSTEM_USER = "postgres"


def binary(name: str) -> str:
    """Debian keeps the server's out of a user's PATH."""
    found = shutil.which(name) or next(
        (str(path) for path in sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))), None
    )
    assert found, f"{name} is not installed: `make test` installs it, or: apt-get install postgresql"
    return found


_SYSTEM = ["setpriv", f"--reuid={_SYSTEM_USER}", f"--regid={_SYSTEM_USER}", "--init-groups"]


def _own_directory() -> Path:
    """A new one, the server's."""
    directory = Path(tempfile.mkdtemp(prefix="sfss-postgres-"))
    if os.geteuid() == 0:
        shutil.chown(directory, _SYSTEM_USER)
    return directory


@functools.cache
def _pattern() -> Path:
    """What ``initdb`` makes, which takes longer than all else of a server's start: once, and copied from then on."""
    directory = _own_directory()
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    command = [*(_SYSTEM if os.geteuid() == 0 else []), binary("initdb"), "-D", str(directory / "data"), "-A", "trust",
               "-U", USER, "--no-sync", "-E", "UTF8", "--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en-US"
               ]  # fmt: skip
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, (command, done.stderr)
    return directory / "data"


class Postgres:
    """One server. Its default collation isn't that of bytes, so that nothing depends on that."""

    def __init__(self, port: int = 0, like: Postgres | None = None) -> None:
        """``like`` another one, which is stopped: with what that has."""
        self.directory = _own_directory()
        self.port = port or free_port()
        self._data = self.directory / "data"
        self._log = self.directory / "log"
        self._as_user = _SYSTEM if os.geteuid() == 0 else []
        self.process: subprocess.Popen[bytes] | None = None
        subprocess.run(["cp", "-a", like._data if like else _pattern(), self._data], check=True)

    def start(self) -> None:
        """Returns when it answers. After a kill the last of its processes may still be ending."""

        def answers() -> bool:
            if self.process is None or self.process.poll() is not None:
                self.process = self._begin()
            with contextlib.suppress(OSError), socket.create_connection((HOST, self.port), 1):
                return self.psql("postgres", "SELECT 1") == "1"
            return False

        wait_for(answers, timeout=60, what=f"PostgreSQL; its log is {self._log}")

    @property
    def command(self) -> list[str]:
        """What starts it."""
        settings = {"listen_addresses": HOST, "unix_socket_directories": self.directory, "shared_buffers": "32MB",
                    "max_connections": 80}  # fmt: skip
        command = [*self._as_user, binary("postgres"), "-D", str(self._data), "-p", str(self.port)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        return command

    def _begin(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(self.command, cwd=self.directory, stdout=log, stderr=log)

    def psql(self, database: str, statement: str) -> str:
        """What a statement answers, as text; '' if it fails."""
        return self.says(database, statement)[0]

    def says(self, database: str, statement: str, user: str = USER) -> tuple[str, str]:
        """The same, and what psql says of errors; ``database`` may be its URL."""
        place = ["-h", HOST, "-p", str(self.port), "-U", user, database.rpartition("/")[2]]
        command = [binary("psql"), "-X", "-A", "-t", *place, "-c", statement]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        return done.stdout.strip(), done.stderr.strip()

    def ask_for_passwords(self, user: str) -> None:
        """Of this user, from now on."""
        rules = self._data / "pg_hba.conf"
        rules.write_text(f"host all {user} all scram-sha-256\n{rules.read_text()}")
        self.psql("postgres", "SELECT pg_reload_conf()")

    def folder(self) -> Path:
        """One of its machine, in which it may make files, and so may the tests."""
        made = Path(tempfile.mkdtemp(dir=self.directory))
        if self._as_user:
            shutil.chown(made, _SYSTEM_USER)
        return made

    @contextlib.contextmanager
    def database(self, like: str = "template1") -> Iterator[str]:
        """A new database, with what is in another one that nobody uses; gives its URL."""
        name = f"t{secrets.token_hex(6)}"
        self.psql("postgres", f"CREATE DATABASE {name} TEMPLATE {like.rpartition('/')[2]}")
        yield f"postgresql://{USER}@{HOST}:{self.port}/{name}"

    def processes(self) -> list[int]:
        """All of its, the first one first."""
        assert self.process is not None
        return processes(self.process.pid)

    def kill(self) -> None:
        """SIGKILL to all of it, as when the machine's memory is full."""
        assert self.process is not None
        self._signal(signal.SIGKILL)
        self.process.wait(20)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """It accepts connections, and answers nothing."""
        for _ in range(2):  # what the first process was just starting, too
            self._signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def stop(self) -> None:
        """End it in good order."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        self.process.wait(20)

    def close(self) -> None:
        """End it, and all that it has."""
        if self.process is not None and self.process.poll() is None:
            self._signal(signal.SIGCONT)
            self.process.send_signal(signal.SIGQUIT)
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:  # one of its processes was just being born when it was frozen
                self.kill()
        time.sleep(0.05)
        shutil.rmtree(self.directory, ignore_errors=True)


def processes(first: int) -> list[int]:
    """The first process of a server, and its others."""
    with contextlib.suppress(OSError):
        return [first, *map(int, Path(f"/proc/{first}/task/{first}/children").read_text().split())]
    return [first]


def migrate(url: str, *options: str) -> str:
    """Make the tables of a node in a database, as users do; what the command says."""
    command = [sys.executable, "-m", "sfss", "post", "migrate", "--url", url, *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextlib.contextmanager
def postgres() -> Iterator[Postgres]:
    """A server that runs."""
    server = Postgres()
    try:
        server.start()
        yield server
    finally:
        server.close()


@contextlib.contextmanager
def pgbouncer(url: str) -> Iterator[str]:
    """One in its transaction mode, before a database; gives the URL by which it is reached."""
    server, _, database = url.rpartition("/")
    port, server_port = free_port(), server.rpartition(":")[2]
    with tempfile.TemporaryDirectory(prefix="sfss-pgbouncer-") as directory:
        settings = Path(directory) / "pgbouncer.ini"
        settings.write_text(  # auth_type any: it asks the server as this user, whoever asks it
            f"[databases]\n{database} = host={HOST} port={server_port} user={USER}\n"
            f"[pgbouncer]\nlisten_addr = {HOST}\nlisten_port = {port}\nauth_type = any\npool_mode = transaction\n"
            f"default_pool_size = 4\nunix_socket_dir = {directory}\nignore_startup_parameters = extra_float_digits\n"
        )
        command = [binary("pgbouncer"), str(settings)]
        if os.geteuid() == 0:
            shutil.chown(directory, _SYSTEM_USER)
            command[1:1] = ["-u", _SYSTEM_USER]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:

            def answers() -> bool:
                with contextlib.suppress(OSError), socket.create_connection((HOST, port), 1):
                    return True
                return False

            wait_for(answers, what="pgbouncer")
            yield f"postgresql://{USER}@{HOST}:{port}/{database}"
        finally:
            process.terminate()
            process.wait(10)
