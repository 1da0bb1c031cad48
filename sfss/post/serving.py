"""``sfss post`` as a service: sfss over one node, a database, with each file at a URL of its own, written once.

It is ``sfss`` with other defaults; what is set in the configuration or the environment wins over these.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path

from sfss.errors import ConfigError

DEFAULTS: Mapping[str, Mapping[str, object]] = {
    "server": {"port": 8080},
    "post": {"enabled": True},
    "dashboard": {"enabled": False},  # what lies at the root is files; /status tells the rest
    # A file that is one record is a row, which EXPORT gives. It is in memory whole, and takes its time on its way.
    "storage": {"timeout": 10.0},
    "limits": {"max_file_size": "100MiB", "record_size": "16MiB"},
}

DESCRIPTION = """\
Files in PostgreSQL, each at a URL of its own: POST /images/a/b.jpg creates one, once; GET reads it. Put nginx before
it, as conf/post-nginx.conf has it, and a file is asked of the database once.

`sfss post migrate` makes the tables that it needs, and the SQL functions.
"""

EXAMPLES = """\
examples:
  createdb data && sfss post migrate --url postgresql://127.0.0.1/data
  sfss post --url postgresql://127.0.0.1/data --workdir /var/tmp
  SFSS_STORAGE_NODES=postgresql://data:secret@db/data sfss post      other users of the machine don't see this
  sfss post                                                          on three nodes of its own, to try it
  curl --data-binary @cat.jpg 127.0.0.1:8080/images/cat.jpg          201, and then 405
  curl 127.0.0.1:8080/images/cat.jpg                                 200

docs/post.rst says more; conf/sfss.toml explains each setting.
"""


def add_options(post: argparse.ArgumentParser) -> None:
    """What the service takes besides the options that ``sfss`` has. Each has the name, too, that ``post`` gave it."""
    post.add_argument("--url", "-connection-string", metavar="URL",
                      help="storage.nodes: where the files lie, postgresql://user@host:port/database, or any other node"
                      " (default: what the configuration names, or nodes of its own)")  # fmt: skip
    post.add_argument("--workdir", "-workdir", metavar="DIR",
                      help="where it works: what is relative in the configuration, as embedded.data, is relative to"
                      " this (default: where it is started). No body is laid aside there")  # fmt: skip
    post.add_argument("-run-migrate", dest="run_migrate", action="store_true",
                      help="do what `sfss post migrate` does, and end")  # fmt: skip


def overrides(options: argparse.Namespace) -> Mapping[str, Mapping[str, object]]:
    """The settings that these options make, by section."""
    return {"storage": {"nodes": [options.url]}} if options.url else {}


def enter(options: argparse.Namespace) -> None:
    """Go to the directory where it is to work. Raises ConfigError."""
    if file := getattr(options, "config", None) or os.environ.get("SFSS_CONFIG"):
        options.config = str(Path(file).absolute())
    if options.workdir:
        try:
            os.chdir(options.workdir)
        except OSError as error:
            raise ConfigError(f"--workdir: {options.workdir} can't be entered: {error.strerror}") from None
