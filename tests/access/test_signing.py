"""Signed URLs: each is good for one method, one path, one time, and for whoever has one of the secrets."""

from __future__ import annotations

import base64
import hashlib
import hmac
import itertools
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfss.access import signing
from sfss.access.signing import METHODS, Signed, fault, sign

OLD, NEW = "an old secret of ours", "a new secret of ours"
NOW = 1_800_000_000
PATH = "photos/фото 1.jpg"


def test_a_signature_holds_for_what_it_was_made_for_until_it_expires() -> None:
    signed = sign(NEW, "GET", PATH, NOW + 60)
    assert fault(signed, [NEW], "GET", PATH, NOW) is None
    assert fault(signed, [NEW], "GET", PATH, NOW + 59.9) is None
    assert "has expired" in (fault(signed, [NEW], "GET", PATH, NOW + 60) or "")


def test_it_is_what_the_page_says_so_that_other_programs_can_sign() -> None:
    text = f"sfss-signed-url-1\nGET\n{NOW}\n{PATH}".encode()
    made = base64.urlsafe_b64encode(hmac.new(NEW.encode(), text, hashlib.sha256).digest()).decode().rstrip("=")
    assert sign(NEW, "GET", PATH, NOW) == Signed(str(NOW), made)


def test_get_is_for_head_too_and_nothing_else_for_anything_else() -> None:
    for signs, asks in itertools.product(METHODS, (*METHODS, "HEAD", "PATCH", "get", "")):
        held = fault(sign(NEW, signs, PATH, NOW), [NEW], asks, PATH, NOW - 1) is None
        assert held == (signs == asks or (signs, asks) == ("GET", "HEAD")), (signs, asks)


@pytest.mark.parametrize(
    "path",
    ["", "photos", f"{PATH} ", f"/{PATH}", PATH.upper(), PATH.replace("1", "１"), f"{PATH}/x", "photos/фото%201.jpg",
     "photos//фото 1.jpg", "photos/./фото 1.jpg", f"{PATH}\0", f"\n{PATH}", "photos/фото+1.jpg"],
)  # fmt: skip
def test_no_other_path_is_let_through(path: str) -> None:
    assert fault(sign(NEW, "GET", PATH, NOW), [NEW], "GET", path, NOW - 1) is not None


def test_composed_and_decomposed_names_are_two() -> None:
    assert fault(sign(NEW, "GET", "\u00e9", NOW), [NEW], "GET", "e\u0301", NOW - 1) is not None


def test_the_time_can_not_be_changed() -> None:
    signed = sign(NEW, "GET", PATH, NOW)
    for expires in (str(NOW + 1), f"0{NOW}", f"+{NOW}", f" {NOW}", f"{NOW}.0", f"{NOW}\n", "", "-1", "9" * 12, "١٢٣"):
        assert fault(signed._replace(expires=expires), [NEW], "GET", PATH, NOW - 1) is not None, expires


def test_no_truncated_and_no_altered_signature_holds() -> None:
    signed = sign(NEW, "GET", PATH, NOW)
    for length in range(len(signed.signature)):
        assert fault(signed._replace(signature=signed.signature[:length]), [NEW], "GET", PATH, NOW - 1) is not None
    for place in range(len(signed.signature) - 1):  # of the last character two bits mean nothing
        for other in string.ascii_letters + string.digits + "-_=+/ ":
            altered = signed.signature[:place] + other + signed.signature[place + 1 :]
            held = fault(signed._replace(signature=altered), [NEW], "GET", PATH, NOW - 1) is None
            assert held == (altered == signed.signature)


def test_even_what_decodes_to_the_same_bytes_must_be_written_as_it_was_made() -> None:
    signed = sign(NEW, "GET", PATH, NOW)
    decoded = base64.urlsafe_b64decode(f"{signed.signature}=")
    twins = [signed.signature[:-1] + last for last in string.ascii_letters + string.digits + "-_"]
    same = [twin for twin in twins if base64.urlsafe_b64decode(f"{twin}=") == decoded]
    assert len(same) > 1
    assert [t for t in same if fault(signed._replace(signature=t), [NEW], "GET", PATH, NOW - 1) is None] == [
        signed.signature
    ]


def test_secrets_can_be_rotated() -> None:
    before, after = sign(OLD, "GET", PATH, NOW), sign(NEW, "GET", PATH, NOW)
    for secrets, holds in (([OLD], (True, False)), ([NEW, OLD], (True, True)), ([NEW], (False, True))):
        assert tuple(fault(signed, secrets, "GET", PATH, NOW - 1) is None for signed in (before, after)) == holds
    assert "no signatures hold here" in (fault(after, [], "GET", PATH, NOW - 1) or "")


@given(st.text(), st.text(), st.text(alphabet="GETPUTHAD\n"), st.text())
def test_nothing_made_up_holds(expires: str, signature: str, method: str, path: str) -> None:
    assert fault(Signed(expires, signature), [NEW, OLD], method, path, 0) is not None


def test_a_query_says_it_once_in_any_order_or_not_at_all() -> None:
    expected = Signed("1", "s")
    for order in itertools.permutations([("path", "p"), ("expires", "1"), ("signature", "s"), ("x", "y")]):
        assert signing.given(order) == expected
    assert signing.given([("path", "p")]) is None
    assert signing.given([("signature", "s"), ("expires", "1"), ("signature", "s")]) == Signed("1", "")
    assert signing.given([("expires", "2"), ("signature", "s"), ("expires", "1")]) == Signed("", "s")
    assert signing.given([("Signature", "s")]) is None


def test_no_signature_lives_for_ever() -> None:
    signing.check_life(3600)
    for seconds in (0, -1, 11 * 366 * 86400):
        with pytest.raises(ValueError, match="from a second to ten years"):
            signing.check_life(seconds)
