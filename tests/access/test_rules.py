"""The rules: who may do what, and what is said to who may not."""

from __future__ import annotations

from typing import Any

import pytest

from sfss import config
from sfss.access import keys, signing
from sfss.access.keys import ADMIN, READ, STATUS, WRITE, Scope
from sfss.access.rules import NOTHING, Rules, Wanted
from sfss.errors import Denied, NoKey, SfssError, Unavailable

NOW = 1_800_000_000.0
SECRET = "a-secret-of-the-tests"


def rules(*policies: dict[str, Any], **access: Any) -> Rules:
    found = Rules(config.load(overrides={"access": {"signing_secrets": [SECRET], **access}, "policy": policies}))
    found.learn({})
    return found


def key_for(of: Rules, *scopes: Scope, lifetime: float | None = None) -> str:
    made = keys.make("", scopes, now=NOW, lifetime=lifetime)
    of.learn({**(of._keys or {}), made.id: made.key})
    return made.text


def may(of: Rules, wanted: Wanted, text: str | None = None, signed: signing.Signed | None = None) -> bool:
    try:
        of.check(wanted, of.shown(text, NOW), signed, NOW)
    except SfssError:
        return False
    return True


def test_where_nothing_is_set_everybody_may_everything() -> None:
    open_ = rules()
    assert open_.are_open
    assert all(may(open_, Wanted(right, "x", whole=whole)) for right in keys.RIGHTS for whole in (True, False))


def test_everybody_may_what_the_settings_say_and_no_more() -> None:
    for anonymous in ([], ["read"], ["write"], ["read", "write"]):
        some = rules(anonymous=anonymous)
        assert some.are_open == (len(anonymous) == 2)
        assert may(some, Wanted(READ, "x")) == ("read" in anonymous)
        assert may(some, Wanted(WRITE, "x")) == ("write" in anonymous)
        assert may(some, Wanted(ADMIN, "", whole=True)) == (len(anonymous) == 2)


def test_a_policy_says_otherwise_for_its_prefix_and_nowhere_else() -> None:
    some = rules({"prefix": "public/", "anonymous": ["read"]}, {"prefix": "public/x/", "copies": 1}, anonymous=[])
    assert may(some, Wanted(READ, "public/a"))
    assert not may(some, Wanted(WRITE, "public/a"))
    assert not may(some, Wanted(READ, "public/x/a"))  # what that one leaves out is as for all paths
    for path in ("public", "publi", "Public/a", "private/public/a", ""):
        assert not may(some, Wanted(READ, path)), path
    assert not rules({"prefix": "a/", "anonymous": []}).are_open
    assert may(rules({"prefix": "a/", "anonymous": []}), Wanted(ADMIN, "", whole=True))


def test_a_key_adds_what_its_scopes_say() -> None:
    some = rules(anonymous=["read"])
    text = key_for(some, Scope("a/", (WRITE,)))
    assert may(some, Wanted(WRITE, "a/x"), text)
    assert may(some, Wanted(READ, "b/x"), text)
    for wanted in (Wanted(WRITE, "b/x"), Wanted(WRITE, "a"), Wanted(WRITE, "A/x"), Wanted(ADMIN, "", whole=True)):
        assert not may(some, wanted, text)


def test_to_administer_all_takes_a_key_for_all() -> None:
    some = rules(anonymous=[])
    assert may(some, Wanted(ADMIN, "", whole=True), key_for(some, Scope("", (ADMIN,))))
    assert not may(some, Wanted(ADMIN, "", whole=True), key_for(some, Scope("a/", (ADMIN,))))
    assert not may(some, Wanted(READ, "x"), key_for(some, Scope("", (ADMIN,))))


def test_to_see_the_status_is_no_more_than_that() -> None:
    some = rules({"prefix": "a/", "anonymous": ["read"]}, anonymous=[])
    text = key_for(some, Scope("", (STATUS,)))
    assert may(some, Wanted(STATUS, "", whole=True), text)
    assert may(some, Wanted(STATUS, "", whole=True), key_for(some, Scope("", (ADMIN,))))
    assert not may(some, Wanted(STATUS, "", whole=True), key_for(some, Scope("", (READ, WRITE))))
    assert not may(some, Wanted(STATUS, "", whole=True))
    for wanted in (
        Wanted(ADMIN, "", whole=True),
        Wanted(READ, "b"),
        Wanted(WRITE, "a/x"),
        Wanted(READ, "", whole=True),
    ):
        assert not may(some, wanted, text), wanted
    assert may(some, Wanted(READ, "a/x"), text)  # as everybody
    assert may(rules({"prefix": "a/", "anonymous": []}), Wanted(STATUS, "", whole=True))


def test_a_list_takes_the_right_for_all_that_it_may_tell_of() -> None:
    some = rules({"prefix": "b/private/", "anonymous": []}, {"prefix": "c/", "anonymous": ["read"]}, anonymous=[])
    one = key_for(some, Scope("a/", (READ,)))
    for prefix, can in (("a/", True), ("a/x", True), ("a", False), ("", False), ("b/", False), ("c/", True)):
        assert may(some, Wanted(READ, prefix, whole=True), one) == can, prefix
    public = rules({"prefix": "b/private/", "anonymous": []})
    for prefix, can in (("", False), ("b", False), ("b/p", False), ("b/private/x", False), ("a", True), ("b/x", True)):
        assert may(public, Wanted(READ, prefix, whole=True)) == can, prefix
    assert may(public, Wanted(READ, "", whole=True), key_for(public, Scope("b/private/", (READ,))))
    assert not may(public, Wanted(READ, "", whole=True), key_for(public, Scope("b/private/x", (READ,))))


def test_it_is_said_what_is_wrong() -> None:
    some = rules(anonymous=[])
    write = Wanted(WRITE, "a/x", method="PUT")
    text = key_for(some, Scope("a/", (READ,)))
    expired = key_for(some, Scope("a/", (WRITE,)), lifetime=-1)
    signed = signing.sign(SECRET, "GET", "a/x", int(NOW) + 1)
    for shown, signature, kind, says in (
        (None, None, NoKey, "only who shows a key may write 'a/x'"),
        ("sfss_x_y", None, NoKey, "there is no such key: only who"),
        (expired, None, NoKey, "has expired: only who shows a key"),
        (text, None, Denied, "may not write 'a/x': use one that may"),
        (None, signed, Denied, "isn't signed for this"),
        (expired, signed, Denied, "isn't signed for this"),
    ):
        with pytest.raises(kind, match=says) as refused:
            some.check(write, some.shown(shown, NOW), signature, NOW)
        assert type(refused.value) is kind
        assert text.rpartition("_")[2] not in str(refused.value)


def test_a_disabled_key_is_none_and_what_everybody_may_stays() -> None:
    some = rules(anonymous=["read"])
    made = keys.make("", [Scope("", (WRITE,))], now=NOW)
    some.learn({made.id: made.key})
    assert may(some, Wanted(WRITE, "x"), made.text)
    some.learn({})
    assert not may(some, Wanted(WRITE, "x"), made.text)
    assert may(some, Wanted(READ, "x"), made.text)


def test_while_no_keys_are_known_who_shows_one_is_neither_let_in_nor_sent_away() -> None:
    some = Rules(config.load(overrides={"access": {"anonymous": ["read"], "signing_secrets": [SECRET]}}))
    write = Wanted(WRITE, "x", method="PUT")
    with pytest.raises(Unavailable, match="the keys can't be read from the nodes yet"):
        some.check(write, some.shown("sfss_a_b", NOW), None, NOW)
    some.check(Wanted(READ, "x"), some.shown("sfss_a_b", NOW), None, NOW)  # that everybody may is known
    some.check(write, some.shown("sfss_a_b", NOW), signing.sign(SECRET, "PUT", "x", int(NOW) + 1), NOW)
    with pytest.raises(NoKey):
        some.check(write, NOTHING, None, NOW)


def test_a_signature_is_enough_for_what_it_is_for_and_never_for_lists_or_nodes() -> None:
    some = rules(anonymous=[])
    signed = signing.sign(SECRET, "GET", "", int(NOW) + 1)
    assert may(some, Wanted(READ, "x", method="GET"), None, signing.sign(SECRET, "GET", "x", int(NOW) + 1))
    assert not may(some, Wanted(READ, "", whole=True), None, signed)
    assert not may(some, Wanted(ADMIN, "", whole=True), None, signed)


def test_whether_somebody_may_do_something_anywhere_is_known_without_a_path() -> None:
    some = rules({"prefix": "a/", "anonymous": ["read"]}, anonymous=[])
    writes = key_for(some, Scope("b/", (WRITE,)))
    some.check_somewhere(READ, NOTHING)
    some.check_somewhere(WRITE, some.shown(writes, NOW))
    with pytest.raises(NoKey):
        some.check_somewhere(WRITE, NOTHING)
    with pytest.raises(Denied, match="may not write everything"):
        some.check_somewhere(WRITE, some.shown(key_for(some, Scope("", (READ, ADMIN))), NOW))
    unknown = Rules(config.load(overrides={"access": {"anonymous": []}}))
    with pytest.raises(Unavailable):
        unknown.check_somewhere(WRITE, unknown.shown(writes, NOW))


def test_other_settings_hold_from_then_on() -> None:
    some = rules()
    some.change(config.load(overrides={"access": {"anonymous": []}}))
    assert not some.are_open
    assert not may(some, Wanted(READ, "x"))
