"""Options that many commands have, and the settings that a command line, the environment and a file make together."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping

from sfss import config
from sfss.client import commands as client_commands
from sfss.config import Settings

Sections = Mapping[str, Mapping[str, object]]


def add_config(parser: argparse.ArgumentParser) -> None:
    """Which file has the settings."""
    # SUPPRESS: an option that stands before the command isn't undone by its default behind it.
    parser.add_argument("--config", metavar="FILE", default=argparse.SUPPRESS,
                        help="settings in TOML, see conf/sfss.toml (default: $SFSS_CONFIG, or none)")  # fmt: skip


def add_settings(parser: argparse.ArgumentParser, port: int = 8255) -> None:
    """The same, and where the service answers."""
    add_config(parser)
    parser.add_argument("--host", default=argparse.SUPPRESS, help="server.host (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=argparse.SUPPRESS, help=f"server.port (default: {port})")


def add_service(parser: argparse.ArgumentParser) -> None:
    """Which service is asked, and with which key."""
    add_settings(parser)
    client_commands.add_key(parser)


def add_workers(parser: argparse.ArgumentParser) -> None:
    """How many processes serve."""
    parser.add_argument("--workers", metavar="N", default=argparse.SUPPRESS,
                        help="server.workers: processes that serve, or auto for one per core (default: 1)")  # fmt: skip


def settings_of(
    options: argparse.Namespace, *, serves: bool = False, defaults: Sections | None = None, more: Sections | None = None
) -> Settings:
    """The settings by these options, as ``config.load`` has them; ``more`` wins over all. Raises ConfigError."""
    given = {key: value for key in ("host", "port", "workers") if (value := getattr(options, key, None)) is not None}
    file = getattr(options, "config", None) or os.environ.get("SFSS_CONFIG")
    return config.load(file, os.environ, {"server": given, **(more or {})}, serves=serves, defaults=defaults)
