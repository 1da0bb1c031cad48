"""Addresses: who is let in, however his address is written."""

from __future__ import annotations

import pytest

from sfss.access.addresses import Addresses, client_of
from sfss.config import parse_network


def addresses(allow: str = "", deny: str = "") -> Addresses:
    return Addresses([parse_network(text) for text in allow.split()], [parse_network(text) for text in deny.split()])


def test_where_nothing_is_said_everybody_may_come() -> None:
    assert addresses().is_open
    assert all(map(addresses().admits, ("192.0.2.1", "::1", "", "unix:")))


def test_where_some_are_allowed_nobody_else_may_come() -> None:
    some = addresses("10.0.0.0/8 2001:db8::/32")
    assert not some.is_open
    assert all(map(some.admits, ("10.1.2.3", "2001:db8::1", "::ffff:10.1.2.3")))
    assert not any(map(some.admits, ("11.0.0.1", "2001:db9::1", "::ffff:11.0.0.1", "::1")))


def test_to_be_denied_wins() -> None:
    some = addresses("10.0.0.0/8", "10.0.0.5 fe80::/10")
    assert some.admits("10.0.0.4")
    assert not any(map(some.admits, ("10.0.0.5", "::ffff:10.0.0.5", "::ffff:a00:5", "fe80::1%eth0")))
    assert addresses(deny="10.0.0.5").admits("192.0.2.1")


@pytest.mark.parametrize("text", ["", "localhost", "10.0.0", "010.0.0.4", "10.0.0.4/32", "10.0.0.4 ", "0x0a.0.0.4"])
def test_who_has_no_address_that_can_be_read_may_not_come_where_not_everybody_may(text: str) -> None:
    assert not addresses("10.0.0.0/8").admits(text)
    assert not addresses(deny="192.0.2.1").admits(text)


def test_clients_are_counted_by_what_they_can_not_choose() -> None:
    assert client_of("2001:db8:1:2:3:4:5:6") == client_of("2001:db8:1:2:ffff::1") == "2001:db8:1:2::/64"
    assert client_of("2001:db8:1:3::1") != client_of("2001:db8:1:2::1")
    assert client_of("::ffff:192.0.2.1") == client_of("192.0.2.1") == "192.0.2.1"
    assert client_of("192.0.2.2") != client_of("192.0.2.1")
    assert client_of("") == ""
