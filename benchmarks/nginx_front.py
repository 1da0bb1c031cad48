"""The contenders of nginx in front of sfss, as ``conf/nginx.conf`` puts it there, and of the same nginx with the same
bytes on its disk; ``benchmarks.suite`` measures them.

One worker, without TLS, before one front over memcached. What differs is the location: the static ones, with the same
``open_file_cache`` (but for one) and the same log, are put into the configuration for the run.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.contenders import Contender, Running, put_all, sfss_over_memcached
from benchmarks.httpload import Files, Httpload, Target, name_of
from tests.nginx.server import Nginx

# Two are well tuned, with descriptors kept open: sendfile with the head held back for its first piece, and reading into
# a buffer. The third is as nginx comes: each file is opened anew.
STATIC = """\
        location /sendfile/ { alias %(files)s/; sendfile on; tcp_nopush on; }
        location /read/ { alias %(files)s/; }
        location /stock/ { alias %(files)s/; sendfile on; open_file_cache off; }
"""
HERE = "        location = /file {\n"  # before which they are put
# What the fetching each second costs, which the configuration's own validity asks for, shows beside this one.
MINUTE = {"proxy_cache_valid 200 1s;": "proxy_cache_valid 200 60s;", "inactive=10s": "inactive=100s"}


@contextlib.contextmanager
def _nginx(directory: Path, prefix: str, kept: str = "", changes: Mapping[str, str] | None = None) -> Iterator[Running]:
    """``prefix``: of the location that is asked; ``kept``: of the paths of its files at the front; ``changes``: to the
    configuration.
    """
    static, own = directory / "static", directory / "nginx"
    own.mkdir()

    def fill(load: Httpload, files: Files) -> None:
        put_all(front.target._replace(prefix=front.target.prefix + kept), load, files)
        for number in range(files.number):
            file = static / name_of(files, number)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(load.body(number, files.size))

    with sfss_over_memcached(directory) as front:
        changes = {HERE: STATIC % {"files": static} + HERE, **(changes or {})}
        server = Nginx(own, [front.target.port], tls=False, workers=1, changes=changes)
        with server.running():
            pid = int((own / "nginx.pid").read_text())
            yield Running(Target(server.port, prefix), [pid], front.http + front.store, fill)


_SHIPPED: Mapping[str, Any] = {}

CONTENDERS = tuple(
    Contender(name, what, False, functools.partial(_nginx, prefix=prefix, **options))
    for name, what, prefix, options in (
        ("nginx-disk", "nginx, from its disk, sendfile", "/sendfile/", _SHIPPED),
        ("nginx-read", "nginx, from its disk, read", "/read/", _SHIPPED),
        ("nginx-stock", "nginx, from its disk, as it comes", "/stock/", _SHIPPED),
        ("nginx-cache", "nginx's cache, warm: valid for a minute", "/file?path=", {"changes": MINUTE}),
        ("nginx-second", "nginx's cache, valid for a second", "/file?path=", _SHIPPED),
        ("nginx-clean", "the same by a clean URL", "/f/", _SHIPPED),
        ("nginx-stored", "laid down by nginx (proxy_store)", "/immutable/", {"kept": "immutable/"}),
    )
)
