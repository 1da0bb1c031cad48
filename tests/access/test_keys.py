"""Keys: what proves one, what it may, and that nothing of it gets out."""

from __future__ import annotations

import ast
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfss.access import keys
from sfss.access.keys import ADMIN, READ, STATUS, WRITE, Key, Keys, Scope

NOW = 1_800_000_000.0
ACCESS = Path(keys.__file__).parent


def made(*scopes: Scope, lifetime: float | None = None) -> keys.Made:
    return keys.make("a name", scopes or [Scope("", (READ,))], now=NOW, lifetime=lifetime)


def test_a_key_is_found_by_its_text_and_by_no_other() -> None:
    one, other = made(), made()
    known: Keys = {one.id: one.key, other.id: other.key}
    assert keys.find(known, one.text) == one.id
    assert keys.find(known, other.text) == other.id
    mixed = f"sfss_{one.id}_{other.text.rpartition('_')[2]}"
    for forged in (
        mixed,
        one.text[:-1],
        one.text + "a",
        one.text.upper(),
        one.text.replace("sfss_", ""),
        f" {one.text}",
        f"{one.text}\n",
        f"sfss_{one.id}_",
        f"sfss_{one.id}_{one.key.hash.hex()}",
        "",
        "sfss_",
        "\udcff",
        f"sfss_{one.id}_{'ａ' * 32}",
    ):
        assert keys.find(known, forged) is None, forged
    assert keys.find({}, one.text) is None


@given(st.text())
def test_no_text_by_chance_is_a_key(text: str) -> None:
    one = made()
    assert keys.find({one.id: one.key}, text) is None


def test_a_secret_has_160_bits_and_is_another_each_time() -> None:
    texts = {made().text for _ in range(100)}
    assert len(texts) == 100
    assert {len(text.rpartition("_")[2]) * 5 for text in texts} == {160}


def test_what_is_kept_tells_nothing_of_the_secret() -> None:
    one = made()
    secret = one.text.rpartition("_")[2]
    assert secret.encode() not in msgspec.msgpack.encode({one.id: one.key})
    assert secret not in repr(one)
    assert secret not in repr(one.key)


def test_keys_come_to_the_nodes_and_back_as_they_are() -> None:
    one, other = made(Scope("a/", (READ, WRITE)), Scope("é", (ADMIN,)), lifetime=5.5), made()
    known: Keys = {one.id: one.key, other.id: other.key}
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(known), type=Keys) == known


def test_a_later_version_may_have_said_more_of_a_key() -> None:
    one = made()
    more = [*msgspec.to_builtins(one.key, builtin_types=(bytes,)), "something new"]
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(more), type=Key) == one.key


def test_a_key_holds_until_it_expires_or_is_disabled() -> None:
    key = made(lifetime=60).key
    assert key.lacks(NOW + 59) is None
    assert key.lacks(NOW + 60) == "has expired"
    assert made().key.lacks(NOW * 2) is None
    assert msgspec.structs.replace(key, disabled=True).lacks(NOW) == "is disabled"


def test_a_key_may_what_one_of_its_scopes_says() -> None:
    key = made(Scope("a/", (READ,)), Scope("b/c", (WRITE,))).key
    assert key.may(READ, "a/")
    assert key.may(READ, "a/x")
    assert key.may(WRITE, "b/cd")
    for right, path in ((WRITE, "a/x"), (READ, "a"), (READ, ""), (READ, "A/x"), (READ, "b/c"), (ADMIN, "a/x")):
        assert not key.may(right, path), (right, path)


def test_who_may_administer_may_see_the_status_and_not_the_other_way_round() -> None:
    sees, administers = made(Scope("", (STATUS,))).key, made(Scope("", (ADMIN,))).key
    assert [key.may(STATUS, "") for key in (sees, administers)] == [True, True]
    assert [key.may(ADMIN, "") for key in (sees, administers)] == [False, True]
    assert not made(Scope("a/", (ADMIN,))).key.may(STATUS, "")
    assert not any(sees.may(right, path) for right in (READ, WRITE, ADMIN) for path in ("", "a/x"))


def test_the_status_is_not_of_some_paths() -> None:
    with pytest.raises(ValueError, match="status is of everything, and can't be for 'a/'"):
        made(Scope("a/", (READ, STATUS)))


@pytest.mark.parametrize("prefix", ["/a", "a//", "../", "a\\", "a\n", "\udcff", "x" * 1024])
def test_a_prefix_that_no_path_has_is_refused(prefix: str) -> None:
    with pytest.raises(ValueError, match="no path begins with"):
        made(Scope(prefix, (READ,)))


@pytest.mark.parametrize("may", [(), ("reed",), ("READ",), ("read,write",)])
def test_rights_that_there_are_not_are_refused(may: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"is no right|may do nothing"):
        made(Scope("", may))


def test_a_name_is_a_short_line() -> None:
    for name in ("a\nb", "x" * 101):
        with pytest.raises(ValueError, match="a key's name"):
            keys.make(name, [Scope("", (READ,))], now=NOW)


def test_rights_are_written_with_commas() -> None:
    assert keys.rights("write, read") == (READ, WRITE)
    with pytest.raises(ValueError, match="there are read, write, status, admin"):
        keys.rights("")


def test_a_key_is_named_by_its_id_or_by_a_name_that_no_other_has() -> None:
    one, other = made(), made()
    known: Keys = {one.id: one.key, other.id: other.key}
    assert keys.named(known, one.id) == one.id
    with pytest.raises(ValueError, match="there are 2 keys of the name 'a name'"):
        keys.named(known, "a name")
    assert keys.named({one.id: one.key}, "a name") == one.id
    with pytest.raises(ValueError, match="there is no key") as refused:
        keys.named(known, one.text)  # the whole key instead of its id
    assert one.text.rpartition("_")[2] not in str(refused.value)


def test_texts_for_logs_hide_secrets_and_signatures() -> None:
    text = made().text
    secret = text.rpartition("_")[2]
    signature = "aB-_" * 10 + "xyz"
    for line in (
        f"Authorization: Bearer {text}",
        f"b'Bearer {text}'",
        f"/file?path=a&signature={signature}&x=1",
        f"/file?Signature={signature}",
        f"/file?%73ignature={signature}&path=a",
    ):
        shown = keys.hidden(line)
        assert secret not in shown
        assert signature not in shown
        assert "..." in shown
    assert keys.hidden("/file?path=a/b.jpg&limit=3") == "/file?path=a/b.jpg&limit=3"


def test_what_proves_something_is_compared_in_constant_time_only() -> None:
    """By the code: what a secret comes down to is never an operand of ``==``, ``in`` or the like."""
    compared = 0
    for module in ("keys.py", "signing.py"):
        for node in ast.walk(ast.parse((ACCESS / module).read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "compare_digest":
                compared += 1
            if isinstance(node, ast.Compare) and not all(isinstance(op, ast.Is | ast.IsNot) for op in node.ops):
                names = {getattr(part, "id", None) or getattr(part, "attr", None)
                         for part in ast.walk(node)}  # fmt: skip
                secret = {"hash", "_hash", "_mac", "secret", "signature", "digest", "mac"}
                assert not names & secret, f"{module}, line {node.lineno}"
    assert compared == 2
