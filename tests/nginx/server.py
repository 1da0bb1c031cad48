"""The real nginx on ``conf/nginx.conf`` as it is shipped, with other addresses, paths, certificates and user."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.servers import HOST, free_ports, process, wait_for

CONF = Path(__file__).parent.parent.parent / "conf" / "nginx.conf"
NAME = "files.example.org"  # the shipped configuration's
STATE, CACHE = "/var/lib/nginx", "/run/sfss-cache"  # where it keeps what it stores, and what it caches
LATE = 2.0  # seconds after which nothing that is kept "for a second" may be shown any more


class Answer(NamedTuple):
    """What came back, whole."""

    status: int
    headers: Mapping[str, str]  # by names in lower case
    body: bytes

    @property
    def cached(self) -> str | None:
        """What nginx says of its cache."""
        return self.headers.get("x-cache-status")


class Nginx:
    """nginx before some fronts. ``tells``: what it does with its cache, in X-Cache-Status, as the configuration offers.
    ``changes``: texts of the configuration that a test wants others for.
    """

    def __init__(
        self,
        directory: Path,
        fronts: Sequence[int],
        *,
        tls: bool = True,
        workers: int = 2,
        tells: bool = True,
        changes: Mapping[str, str] | None = None,
    ) -> None:
        self.directory = directory
        self.tls = tls
        self.tells = tells
        self.redirect_port = free_ports(2)
        self.port = self.redirect_port + 1
        self.config = directory / "nginx.conf"
        self.log = directory / "error.log"
        self.stored = directory / "lib" / "sfss-immutable"
        self.certificate = directory / "certificate.pem"
        self.stored.mkdir(parents=True)
        _make_certificate(self.certificate, directory / "key.pem")
        text = self._moved(CONF.read_text("utf-8"), fronts, workers)
        for old, new in (changes or {}).items():
            text = changed(text, re.escape(old), new)
        self.config.write_text(text)

    def test(self) -> subprocess.CompletedProcess[str]:
        """``nginx -t``."""
        return subprocess.run([*self._command(), "-t"], capture_output=True, text=True, timeout=60, check=False)

    @contextlib.contextmanager
    def running(self) -> Iterator[Nginx]:
        """The server."""
        with process([*self._command(), "-g", "daemon off;"]):
            wait_for(self._answers, what=f"nginx; its log is {self.log}")
            yield self

    def ask(
        self, method: str, target: str, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> Answer:
        """One request, on a connection of its own."""
        connection = self._connection()
        try:
            connection.request(method, target, body, dict(headers or {}))
            answer = connection.getresponse()
            fields = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, fields, answer.read())
        finally:
            connection.close()

    def get(self, target: str, **headers: str) -> Answer:
        """GET; the underscores of ``headers`` are dashes."""
        return self.ask("GET", target, {name.replace("_", "-"): value for name, value in headers.items()})

    def put(self, target: str, body: bytes = b"", **headers: str) -> Answer:
        """PUT, likewise."""
        return self.ask("PUT", target, {name.replace("_", "-"): value for name, value in headers.items()}, body)

    def connect(self, source: str = HOST) -> socket.socket:
        """A connection from an address of this machine, to write to what one likes."""
        sock = socket.create_connection((HOST, self.port), 20, (source, 0))
        return self.tls_context().wrap_socket(sock, server_hostname=NAME) if self.tls else sock

    def kept(self) -> set[Path]:
        """The files that it has laid down, stored, cached, or on their way."""
        return {file for file in self.directory.rglob("*") if file.parent != self.directory and file.is_file()}

    def put_aside(self) -> list[str]:
        """The files that it has open to keep bodies in; they have no names any more."""
        pid = (self.directory / "nginx.pid").read_text().strip()
        found = []
        for worker in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            for descriptor in Path(f"/proc/{worker}/fd").iterdir():
                with contextlib.suppress(OSError):  # closed meanwhile
                    found.append(str(descriptor.readlink()))
        return [name for name in found if name.startswith(f"{self.directory}/client_body/")]

    def tls_context(self) -> ssl.SSLContext:
        """One that believes this server and no other."""
        return ssl.create_default_context(cafile=str(self.certificate))

    def _connection(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=60)
        connection.sock = self.connect()
        return connection

    def _command(self) -> list[str]:
        binary = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")  # Debian keeps it out of a user's PATH
        assert binary, "nginx is not installed: `make test` installs it, or: apt-get install nginx"
        return [binary, "-c", str(self.config), "-p", str(self.directory), "-e", str(self.log)]

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection((HOST, self.port), 1):
            return True
        return False

    def _moved(self, text: str, fronts: Sequence[int], workers: int) -> str:
        listen = " ssl http2" if self.tls else ""
        servers = "\n".join(f"        server {HOST}:{port} max_fails=1 fail_timeout=2s;" for port in fronts)
        if self.tells:
            text = changed(text, "# add_header X-Cache-Status", "add_header X-Cache-Status")
        for pattern, new in (
            (r"^user www-data;$", "user root;" if os.geteuid() == 0 else ""),
            (r"^worker_processes auto;$", f"worker_processes {workers};"),
            (r"/run/nginx\.pid", f"{self.directory}/nginx.pid"),
            (r"/var/log/nginx", str(self.directory)),
            (STATE, f"{self.directory}/lib"),
            (CACHE, f"{self.directory}/lib/sfss-cache"),
            (r"/etc/nginx/tls/fullchain\.pem", str(self.certificate)),
            (r"/etc/nginx/tls/privkey\.pem", f"{self.directory}/key.pem"),
            (r"^http \{$", f"http {{{moved_aside(self.directory)}"),
            (r"^ +server 127\.0\.0\.1:8255 .*$", servers),
            (r"listen 80 default_server;", f"listen {HOST}:{self.redirect_port} default_server;"),
            (r"listen 443 ssl http2 default_server;", f"listen {HOST}:{self.port}{listen} default_server;"),
            (r"listen \[::\]:\d+[^;]*;", ""),
        ):
            text = changed(text, pattern, new)
        return text


def moved_aside(directory: Path) -> str:
    """Where it lays bodies aside, below a directory."""
    kinds = ("client_body", "fastcgi", "uwsgi", "scgi", "proxy")
    return "".join(f"\n    {kind}_temp_path {directory}/{kind};" for kind in kinds)


def changed(text: str, pattern: str, new: str) -> str:
    """A shipped configuration with something else in the place of a pattern, which it must have."""
    made, count = re.subn(pattern, lambda _: new, text, flags=re.MULTILINE)
    assert count, f"the configuration has no {pattern} any more: this starter must know what stands there now"
    return made


def _make_certificate(certificate: Path, key: Path) -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-keyout", str(key), "-out", str(certificate), "-days", "2", "-subj", f"/CN={NAME}",
         "-addext", f"subjectAltName=DNS:{NAME}"],
        check=True, capture_output=True,
    )  # fmt: skip
