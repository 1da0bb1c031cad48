"""Asking a running service: for the commands that are words about its answer, and know no connections."""

from __future__ import annotations

import argparse
import http.client
import json
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Callable

import msgspec

from sfss.config import Server
from sfss.errors import ConfigError
from sfss.options import settings_of


def ask(
    options: argparse.Namespace,
    target: str,
    show: Callable[[http.client.HTTPResponse], int],
    headers: dict[str, str] | None = None,
    method: str = "GET",
    body: bytes | None = None,
    say: Callable[[str], None] = lambda why: print(f"sfss: {why}", file=sys.stderr),
) -> int:
    """Ask the running service, and show what it answers; 1 if that fails, and ``say`` is told why."""
    server = settings_of(options).server
    url = url_of(server) + target
    begun = False
    try:
        request = urllib.request.Request(url, body, headers or {}, method=method)  # noqa: S310
        if options.key:
            request.add_unredirected_header("Authorization", f"Bearer {options.key}")  # nobody else is to see it
        with urllib.request.urlopen(request, timeout=30, context=trusting(server)) as answer:  # noqa: S310
            begun = True
            return show(answer)
    except urllib.error.HTTPError as error:
        say(f"{url} answers {error}{_detail(error)}")
    except (OSError, http.client.HTTPException) as error:
        reason = str(getattr(error, "reason", error)).strip()
        what = f"the answer of {url} broke off" if begun else f"no service answers at {url}"
        todo = "its log says why" if begun else "start it, or name it with --host and --port"
        say(f"{what}: {reason}; {todo}")
    except msgspec.DecodeError:
        say(f"what answers at {url} is no sfss: name one with --host and --port")
    return 1


def url_of(server: Server) -> str:
    """Where to reach the service that these settings are of."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(server.host, server.host)  # noqa: S104
    host = f"[{host}]" if ":" in host else host
    return f"{'https' if server.tls_certificate else 'http'}://{host}:{server.port}"


def trusting(server: Server) -> ssl.SSLContext | None:
    """Trusts the service's own certificate, by whomever it was signed and for whatever name. Raises ConfigError."""
    if not server.tls_certificate:
        return None
    try:
        context = ssl.create_default_context(cafile=server.tls_certificate)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"server.tls_certificate {server.tls_certificate} can't be used: {error}") from None
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.check_hostname = False
    return context


def _detail(error: urllib.error.HTTPError) -> str:
    """What a problem document says, after a colon; nothing if it is none."""
    try:
        return f": {json.loads(error.read())['detail']}"
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError):
        return ""
