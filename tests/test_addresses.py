"""Nodes as settings write them."""

from __future__ import annotations

import pytest

from sfss.addresses import Address, hidden, parse_address

PASSWORD = "s3cret"


@pytest.mark.parametrize(
    ("text", "host", "port", "name"),
    [
        ("localhost:11211", "localhost", 11211, "localhost:11211"),
        ("127.0.0.1:1", "127.0.0.1", 1, "127.0.0.1:1"),
        ("[::1]:65535", "::1", 65535, "[::1]:65535"),
        ("a=10.0.0.1:7900", "10.0.0.1", 7900, "a"),
        ("a=[fe80::1]:7900", "fe80::1", 7900, "a"),
        ("rack-1/a:1=10.0.0.1:7900", "10.0.0.1", 7900, "rack-1/a:1"),
        ("x" * 250 + "=h:1", "h", 1, "x" * 250),
    ],
)
def test_an_address_tells_host_port_and_name(text: str, host: str, port: int, name: str) -> None:
    address = parse_address(text)
    assert address == Address(host, port, name)
    assert str(address) == text.rpartition("=")[2]
    assert address.scheme == "memcached"


@pytest.mark.parametrize("text", ["memcached://[::1]:7900", "a=memcached://[::1]:7900/"])
def test_the_default_scheme_may_be_written(text: str) -> None:
    assert parse_address(text) == parse_address(text.replace("memcached://", "").rstrip("/"))


@pytest.mark.parametrize("text", ["Node1:7900", "[FE80::1]:7900"])
def test_a_name_is_the_same_with_the_scheme_and_without(text: str) -> None:
    """Else whoever writes the scheme moves every file."""
    assert parse_address(f"memcached://{text}") == parse_address(text)
    assert parse_address(f"redis://{text}").name == text


@pytest.mark.parametrize(
    ("url", "scheme", "host", "port", "name"),
    [
        ("redis://cache:6380/2", "redis", "cache", 6380, "cache:6380/2"),
        ("redis://cache", "redis", "cache", 6379, "cache:6379"),
        ("redis://cache/0", "redis", "cache", 6379, "cache:6379"),
        ("rediss://:s3cret@[fe80::1]:1/1?ssl_ca_certs=/a/b", "rediss", "fe80::1", 1, "[fe80::1]:1/1"),
        ("postgresql://user:s3cret@db/files", "postgresql", "db", 5432, "db:5432/files"),
        ("postgresql://db:1/files?user=data&password=s3cret", "postgresql", "db", 1, "db:1/files"),
    ],
)
@pytest.mark.parametrize("prefix", ["", "rack-1="])
def test_a_node_may_be_the_url_of_an_engine(
    url: str, scheme: str, host: str, port: int, name: str, prefix: str
) -> None:
    address = parse_address(prefix + url)
    assert (address.scheme, address.host, address.port, address.url) == (scheme, host, port, url)
    assert (address.name, str(address)) == (prefix.rstrip("=") or name, name)
    assert PASSWORD not in f"{address} {address!r}"


@pytest.mark.parametrize(
    "text",
    ["", "a", "a:", ":1", "a:0", "a:65536", "a:x", "a:1:2", "::1:80", "[::1]", "[::1]80", "[a b]:1", "[]:1", "a b:1",
     "http://a:1", "=a:1", "a b=h:1", "é=h:1", "a\n=h:1", "a=b=h:1", "x" * 251 + "=h:1", "a=", "a=h",
     "redis://", "redis://:s3cret@", "mysql://u:s3cret@h/d", "redis://h:0x", "redis://h:70000/s3cret@", "a=b=redis://h",
     "memcached://h:1/2", "memcached://u:s3cret@h:1", "postgresql://u:s3cret@h:1:2/d", "redis://u:s3cret@[x]/1",
     "é=redis://u:s3cret@h", "redis://u:1234/s3cret@h", "redis://u:1234?s3cret@h", "redis://u/x:s3cret@h",
     "postgresql://u:12/s3cret@h/d"],
)  # fmt: skip
def test_what_is_no_address_is_refused_and_no_password_told(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a node|a node's name is made of") as raised:
        parse_address(text)
    assert PASSWORD not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://user:s3cret@db/files", "postgresql://user:***@db/files"),
        ("redis://:s3cret@db", "redis://:***@db"),
        ("postgresql://db/files?password=s3cret&user=data", "postgresql://db/files?password=***&user=data"),
        ("rediss://db?ssl_password=s3cret&ssl_certfile=/x", "rediss://db?ssl_password=***&ssl_certfile=/x"),
        ("redis://db/1", "redis://db/1"),
    ],
)
def test_a_password_is_hidden(url: str, words: str) -> None:
    assert hidden(url) == words
