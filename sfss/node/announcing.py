"""A node that announces itself to fronts, so that they take it onto their ring: who it is, where, and how large.

In threads of its own, one for each front that it was given, so that a front that hangs holds up no request. What fails
is tried again for ever, and told when it changes. The name and a random id are kept in the data directory: on another
port or machine it is still the same node, and an empty directory is another one.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import json
import logging
import os
import re
import secrets
import ssl
import threading
import time
import urllib.parse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

import sfss
from sfss.addresses import MEMCACHED, parse_address
from sfss.errors import ConfigError
from sfss.membership import NAME

log = logging.getLogger("sfss.node")

FILE = "NODE"  # in the data directory
_PATIENCE = 5.0  # seconds for a front to answer
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 10.0  # seconds between a failure and the next try
_LARGEST = 64 * 1024  # bytes of an answer
_GOOD = range(200, 300)


@dataclass(frozen=True)
class Registering:
    """What a node is told about it when it starts."""

    urls: Sequence[str]  # of fronts
    name: str = ""  # "": the one that is kept, or one that is made up
    advertise: str = ""  # host:port where fronts reach it; "": where it listens
    key: str = field(default="", repr=False)
    heartbeat: float = 10.0  # seconds
    take_over: bool = False  # the place of a node of that name that is gone for good


class Identity(msgspec.Struct, frozen=True):
    """Who a node is, for as long as its data directory is."""

    name: str
    id: str


def check(registering: Registering, host: str) -> None:
    """Raises ConfigError if it can't be done so, by a node that listens on that host."""
    for url in registering.urls:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or not _has_port(parts):
            raise ConfigError(f"--register: '{_shown(url)}' is no front: write http://host:port")
    if not re.fullmatch(r"[!-~]*", registering.key):
        raise ConfigError("--register-key: it is made of visible ASCII characters")
    if registering.name and not NAME.fullmatch(registering.name):
        raise ConfigError(
            f"--name: '{registering.name}' can't be one: letters, digits, '_', '.' and '-', 100 of them at most"
        )
    if not 0.01 <= registering.heartbeat <= 3600:
        raise ConfigError("--heartbeat: seconds between 0.01 and 3600")
    if registering.advertise:
        try:
            if "=" in registering.advertise or parse_address(registering.advertise).scheme != MEMCACHED:
                raise ValueError
        except ValueError:
            raise ConfigError(f"--advertise: '{registering.advertise}' is no address: write host:port") from None
    elif _is_any(host):
        raise ConfigError(f"--advertise: the node listens on {host}; say where fronts reach it, as host:port")


def identity(directory: Path, name: str = "") -> Identity:
    """Who the node over this data directory is; made and kept there if it is nobody yet. Raises ConfigError."""
    file = directory / FILE
    try:
        kept = msgspec.json.decode(file.read_bytes(), type=Identity)
    except FileNotFoundError:
        id = secrets.token_hex(16)
        made = Identity(name or f"node-{id[:8]}", id)
        _keep(file, msgspec.json.encode(made) + b"\n")
        return made
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigError(f"{file}, which says which node this is, can't be read: {error}") from None
    if name and name != kept.name:
        raise ConfigError(
            f"--name: the data in {directory} are those of the node {kept.name}, and files are looked for by that name"
        )
    return kept


def _keep(file: Path, content: bytes) -> None:
    """So that it is there whole or not at all, whatever happens."""
    new = file.with_name(f"{file.name}.new")
    try:
        with new.open("wb") as target:
            target.write(content)
            target.flush()
            os.fsync(target.fileno())
        new.rename(file)
        directory = os.open(file.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise ConfigError(f"{file}, which is to say which node this is, can't be written: {error.strerror}") from None


class Announcer:
    """Announces one node until it is stopped."""

    def __init__(self, registering: Registering, who: Identity, address: str, capacity: Callable[[], int]) -> None:
        """``address``: host:port. ``capacity`` in bytes; is called in threads."""
        self._registering = registering
        self._who = who
        self._address = registering.advertise or address
        self._capacity = capacity
        self._takes_over = registering.take_over
        self._announced = 0
        self._stopped = threading.Event()

    def start(self) -> None:
        """Begin."""
        log.info("this node is %s: it announces itself as %s", self._who.name, self._address)
        for url in self._registering.urls:
            # Daemons: what hangs in one must not hold up the end of the process.
            threading.Thread(target=self._announce_to, args=(url,), name="sfss-announce", daemon=True).start()

    def stop(self) -> None:
        """Announce it no more."""
        self._stopped.set()

    def figures(self) -> list[tuple[str, object]]:
        """What STATS says of it: ``announced`` is when a front last heard it, in seconds since the epoch."""
        return [
            ("node_name", self._who.name),
            ("node_id", self._who.id),
            ("announced", self._announced),
        ]

    def _announce_to(self, url: str) -> None:
        told, pause = "", _FIRST_PAUSE
        while not self._stopped.is_set():
            try:
                status, words = self._say(url)
            except (OSError, http.client.HTTPException, ValueError) as error:
                status, words = 0, f"can't be reached: {str(error) or type(error).__name__}"
            if status in _GOOD:
                self._announced = int(time.time())
                self._takes_over = False
            if words != told:
                log.log(logging.INFO if status in _GOOD else logging.WARNING, "the front %s %s", _shown(url), words)
                told = words
            pause = _FIRST_PAUSE if status else min(2 * pause, _LONGEST_PAUSE)
            self._stopped.wait(self._registering.heartbeat if status else min(pause, self._registering.heartbeat))

    def _say(self, url: str) -> tuple[int, str]:
        """Announce it once: the status, and what the front says in words."""
        parts = urllib.parse.urlsplit(url)
        body = {
            "name": self._who.name,
            "address": self._address,
            "id": self._who.id,
            "capacity": self._capacity(),
            "version": sfss.__version__,
            "takes_over": self._takes_over,
        }
        headers = {"Content-Type": "application/json"}
        if self._registering.key:
            headers["Authorization"] = f"Bearer {self._registering.key}"
        assert parts.hostname is not None
        if parts.scheme == "https":
            context = ssl.create_default_context()
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                parts.hostname, parts.port, timeout=_PATIENCE, context=context
            )
        else:
            connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=_PATIENCE)
        with contextlib.closing(connection):
            connection.request("POST", f"{parts.path.rstrip('/')}/nodes", json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, _words(answer.status, answer.read(_LARGEST))


def _words(status: int, body: bytes) -> str:
    try:
        said = json.loads(body)
        if status in _GOOD:
            why = f": {said['why']}" if said.get("why") else ""
            return f"knows it as {said['name']}, {said['state']}, weight {said['weight']:g}{why}"
        return f"refuses it ({status}): {said['detail']}"
    except (ValueError, LookupError, TypeError, AttributeError):
        return f"answers {status}, and not as a front of sfss does"


def _shown(url: str) -> str:
    """Without what may be a password."""
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))


def _has_port(parts: urllib.parse.SplitResult) -> bool:
    """Whether it has one that can be one, or none."""
    try:
        return parts.port != 0
    except ValueError:
        return False


def _is_any(host: str) -> bool:
    """Whether it means all addresses of the machine."""
    if not host:
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_unspecified
    return False
