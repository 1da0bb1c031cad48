"""The real nginx on ``conf/post-nginx.conf`` as it is shipped, with other addresses, paths and user."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from tests.nginx.server import Nginx, changed, moved_aside
from tests.servers import HOST, free_port

CONF = Path(__file__).parent.parent.parent / "conf" / "post-nginx.conf"


class PostNginx(Nginx):
    """nginx before one front. ``changes``: texts of the configuration that a test wants others for."""

    def __init__(self, directory: Path, front: int, changes: Mapping[str, str] | None = None) -> None:
        self.directory = directory
        self.tls = False
        self.port = free_port()
        self.config = directory / "nginx.conf"
        self.log = directory / "error.log"
        self.stored = directory / "post"
        for folder in (self.stored, directory / "post-temp"):
            folder.mkdir(parents=True)
        text = CONF.read_text("utf-8")
        for pattern, new in (
            (r"^user www-data;$", "user root;" if os.geteuid() == 0 else ""),
            (r"^worker_processes auto;$", "worker_processes 2;"),
            (r"/run/nginx\.pid", f"{directory}/nginx.pid"),
            (r"/var/log/nginx", str(directory)),
            (r"/var/lib/nginx", str(directory)),
            (r"^http \{$", f"http {{{moved_aside(directory)}"),
            (r"# add_header X-Answered-By", "add_header X-Answered-By"),
            (r"^ +server 127\.0\.0\.1:8080;$", f"server {HOST}:{front};"),
            (r"listen 80 default_server;", f"listen {HOST}:{self.port} default_server;"),
            (r"listen \[::\]:80 default_server;", ""),
            *(changes or {}).items(),
        ):
            text = changed(text, pattern, new)
        self.config.write_text(text)

    def laid_down(self) -> dict[str, bytes]:
        """What it has laid down for good, by the URLs' paths; nothing else may be where it lays things down."""
        assert not [file for file in (self.directory / "post-temp").rglob("*") if file.is_file()]
        return {
            f"/{file.relative_to(self.stored)}": file.read_bytes() for file in self.stored.rglob("*") if file.is_file()
        }
