"""URLs of Redis nodes: what they say, what is wrong with them, and real TLS by them."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

import pytest

from sfss.addresses import parse_address
from sfss.backends.redis import RedisNode
from sfss.backends.resp.access import access
from sfss.errors import ConfigError
from tests.backends.test_redis_node import client_of
from tests.redis import redis
from tests.servers import HOST, free_port


def test_a_url_says_where_as_whom_and_which_database() -> None:
    said = access(parse_address("redis://files:s%40cret@example.org:6380/12"))
    assert said == ("example.org", 6380, 12, (b"files", b"s@cret"), None)
    assert access(parse_address("a=redis://:secret@[::1]")) == ("::1", 6379, 0, (b"secret",), None)


def test_over_tls_a_server_must_show_a_certificate_for_its_name_unless_it_is_said_otherwise() -> None:
    tls = access(parse_address("rediss://example.org")).tls
    assert tls is not None
    assert (tls.verify_mode, tls.check_hostname) == (ssl.CERT_REQUIRED, True)
    lax = access(parse_address("rediss://example.org?ssl_cert_reqs=none")).tls
    assert lax is not None
    assert lax.verify_mode == ssl.CERT_NONE


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis://:secret@h/files", "'/files' is no database"),
        ("redis://:secret@h/0?timeout=3", "there is no option timeout"),
        ("redis://:secret@h?db=3", "stand before the question mark"),
        ("redis://h?password=secret", "stand before the question mark"),
        ("redis://:secret@h?ssl_ca_certs=/x", "they are for rediss://"),
        ("rediss://:secret@h?ssl_ca_certs=/not/there", "No such file"),
        ("rediss://:secret@h?ssl_cert_reqs=maybe", "maybe"),
        ("rediss://:secret@h?ssl_min_version=new", "ssl_min_version"),
        ("rediss://h?ssl_certfile=/x&ssl_password=secret", ""),
        ("redis://files@h", "a user has a password"),
    ],
)
def test_what_is_wrong_with_a_url_is_named_without_its_password(url: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RedisNode(parse_address(url), largest_value=1000)
    assert words in str(caught.value)
    assert "storage.nodes" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a server's certificate, signed by itself, for the tests' host; and another one's."""
    folder = tmp_path_factory.mktemp("tls")
    for name in ("good", "other"):
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
             "-days", "2", "-subj", f"/CN={name}", "-addext", f"subjectAltName=IP:{HOST}",
             "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem"],
            check=True, capture_output=True,
        )  # fmt: skip
    return folder


async def test_files_are_kept_over_tls_by_who_trusts_and_is_trusted(tmp_path: Path, certificates: Path) -> None:
    port = free_port()
    tls = ("--tls-port", str(port), "--tls-cert-file", str(certificates / "good.pem"), "--tls-key-file",
           str(certificates / "good.key"), "--tls-ca-cert-file", str(certificates / "good.pem"))  # fmt: skip
    url = f"rediss://{HOST}:{port}"
    ours = f"ssl_certfile={certificates / 'good.pem'}&ssl_keyfile={certificates / 'good.key'}"
    with redis(tmp_path, *tls):
        async with client_of(f"{url}?ssl_ca_certs={certificates / 'good.pem'}&{ours}") as client:
            assert client.away is None
            assert await client.set(b"/k", b"v" * 100_000)
            assert await client.get(b"/k") == b"v" * 100_000
            assert await client.stats()
        async with client_of(f"{url}?ssl_ca_certs={certificates / 'other.pem'}&{ours}") as client:
            assert "over TLS" in str(client.away)
            assert "certificate" in str(client.away)
        async with client_of(f"{url}?ssl_ca_certs={certificates / 'good.pem'}") as client:
            assert client.away, "the server wants to see our certificate, too"
        async with client_of(f"redis://{HOST}:{port}") as client:
            assert client.away, "that is not how one speaks there"
