"""Who asked, behind proxies: what they say counts from trusted addresses only, and what clients say never does."""

from __future__ import annotations

import pytest
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from sfss.config import Network, parse_network
from sfss.web.forwarded import FIELDS, Client, asked_by, client
from sfss.web.headers import combined
from tests.conftest import Nodes, StartFront

PROXY, OTHER = "10.0.0.5", "203.0.113.9"
TRUSTED = tuple(map(parse_network, ("10.0.0.0/8", "2001:db8:1::/48", "127.0.0.1")))


def behind(peer: str, *lines: tuple[str, str], trusted: tuple[Network, ...] = TRUSTED) -> Client:
    """What is made of the headers that come from ``peer``."""
    return client(Client(peer, "http", "front:8255"), combined(CIMultiDict(lines), FIELDS), trusted)


def address(peer: str, *lines: str) -> str:
    return behind(peer, *(("X-Forwarded-For", line) for line in lines)).address


ALL = (("X-Forwarded-For", "198.51.100.7"), ("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "files.example.org"))


def test_a_trusted_proxy_is_believed() -> None:
    assert behind(PROXY, *ALL) == Client("198.51.100.7", "https", "files.example.org")


def test_anybody_else_is_not() -> None:
    assert behind(OTHER, *ALL) == Client(OTHER, "http", "front:8255")


def test_by_default_nobody_is() -> None:
    assert behind("127.0.0.1", *ALL, trusted=()) == Client("127.0.0.1", "http", "front:8255")


def test_a_proxy_that_says_nothing_is_the_client() -> None:
    assert behind(PROXY) == Client(PROXY, "http", "front:8255")


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("1.1.1.1, 198.51.100.7", "198.51.100.7"),  # what the client had made up stands left
        ("10.9.9.9, 198.51.100.7", "198.51.100.7"),
        ("198.51.100.7, 10.1.1.1, 10.2.2.2", "198.51.100.7"),  # two more proxies, trusted
        ("198.51.100.7, 203.0.113.9, 10.2.2.2", "203.0.113.9"),  # one that isn't
        ("10.1.1.1, 10.2.2.2", "10.1.1.1"),  # the client is one of us
        ("198.51.100.7:4711", "198.51.100.7"),
        ("[2001:db8::7]:4711", "2001:db8::7"),
        ("[2001:db8::7]", "2001:db8::7"),
        ("2001:DB8:0::7", "2001:db8::7"),
        ("198.51.100.7, 2001:db8:1::5", "198.51.100.7"),
        ("::ffff:198.51.100.7", "198.51.100.7"),
        ("198.51.100.7, ::ffff:10.1.1.1", "198.51.100.7"),
        ("\t198.51.100.7 ,10.1.1.1 ", "198.51.100.7"),
        ("fe80::1%eth0", "fe80::1"),
    ],
)
def test_the_client_is_the_last_who_is_no_trusted_proxy(line: str, found: str) -> None:
    assert address(PROXY, line) == found


def test_several_lines_are_one_list() -> None:
    assert address(PROXY, "1.1.1.1, 198.51.100.7", "10.1.1.1") == "198.51.100.7"
    assert address(PROXY, "10.1.1.1", "198.51.100.7") == "198.51.100.7"


@pytest.mark.parametrize(
    "garbage", ["", ",", " ", "unknown", "_hidden", "1.2.3", "1.2.3.4.5", "256.1.1.1", "010.0.0.1", "1.2.3.4:port",
                "[::1", "::1]", "[1.2.3.4", "1.2.3.4\x00", "\x85", "for=1.2.3.4", "1.2.3.4;5", "٣.1.1.1", ":::",
                "a" * 9999],
)  # fmt: skip
def test_what_is_no_address_ends_the_walk_at_whoever_said_it(garbage: str) -> None:
    assert address(PROXY, garbage) == PROXY
    assert address(PROXY, f"198.51.100.7, {garbage}") == PROXY
    assert address(PROXY, f"198.51.100.7, {garbage}, 10.1.1.1") == "10.1.1.1"


def test_a_long_list_is_gone_through_once() -> None:
    assert address(PROXY, ", ".join(["198.51.100.7"] + ["10.1.1.1"] * 500)) == "198.51.100.7"


@pytest.mark.parametrize("peer", ["::ffff:10.0.0.5", "2001:db8:1::9", "2001:db8:1::9%eth0"])
def test_a_trusted_peer_is_known_in_each_form(peer: str) -> None:
    assert address(peer, "198.51.100.7") == "198.51.100.7"


@pytest.mark.parametrize("peer", ["", "/run/socket", "11.0.0.5", "2001:db8:2::9"])
def test_a_peer_that_is_not_trusted_stays_the_client(peer: str) -> None:
    assert address(peer, "198.51.100.7") == peer


@pytest.mark.parametrize(
    ("said", "scheme"), [("https", "https"), ("HTTPS ", "https"), ("https, http", "http"), ("http, https", "https"),
                         ("ftp", "http"), ("", "http"), ("https;", "http"), ("javascript", "http")],
)  # fmt: skip
def test_the_scheme_is_what_the_nearest_proxy_says(said: str, scheme: str) -> None:
    assert behind(PROXY, ("X-Forwarded-Proto", said)).scheme == scheme


@pytest.mark.parametrize(
    ("said", "host"),
    [("a.example", "a.example"), ("a.example:8443", "a.example:8443"), ("[2001:db8::1]:443", "[2001:db8::1]:443"),
     ("evil.example, a.example", "a.example"), ("a.example/path", "front:8255"), ("a b", "front:8255"),
     ("", "front:8255"),
     ("user@a.example", "front:8255"), ("a.example:port", "front:8255"), ("a" * 300, "front:8255")],
)  # fmt: skip
def test_the_host_is_what_the_nearest_proxy_says_if_it_is_one(said: str, host: str) -> None:
    assert behind(PROXY, ("X-Forwarded-Host", said)).host == host


async def test_a_front_knows_whom_to_believe(start_front: StartFront, small_memcached: Nodes) -> None:
    front = await start_front(small_memcached, server={"trusted_proxies": ["192.0.2.0/24"]})
    for peer, found in (("192.0.2.1", "198.51.100.7"), (OTHER, OTHER)):
        request = make_mocked_request("GET", "/file", dict(ALL), app=front.app)
        request.transport.get_extra_info = lambda name, peer=peer: (peer, 4711) if name == "peername" else None  # type: ignore[union-attr,method-assign]
        assert asked_by(request).address == found
