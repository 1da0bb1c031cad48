"""Digests: what a client says of its content is checked; what it says in a form unknown is refused or ignored."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfss.errors import BadDigest, BadRequest
from sfss.web.digests import Digests


def b64(name: str, content: bytes) -> str:
    return base64.b64encode(hashlib.new(name, content).digest()).decode()


SHA256, SHA512, MD5 = (b64(name, b"cat") for name in ("sha256", "sha512", "md5"))


def checked(headers: dict[str, str], *pieces: bytes) -> bytes:
    """The content as it comes out of the check."""

    async def content() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    async def read() -> bytes:
        return b"".join([piece async for piece in Digests(headers).checking(content())])

    return asyncio.run(read())


GOOD = [
    {"Content-Digest": f"sha-256=:{SHA256}:"},
    {"Content-Digest": f"sha-512=:{SHA512}:"},
    {"Content-Digest": f"sha-256=:{SHA256}:, sha-512=:{SHA512}:"},
    {"Content-Digest": f" sha-256=:{SHA256}: ,\tsha-512=:{SHA512}: "},
    {"Content-Digest": f"md5=:{MD5}:, sha-256=:{SHA256}:"},
    {"Content-Digest": f"unixsum=:AAA=:, sha-256=:{SHA256}:"},
    {"Content-MD5": MD5},
    {"Content-MD5": f" {MD5} "},
    {"Content-MD5": MD5, "Content-Digest": f"sha-256=:{SHA256}:"},
]


@pytest.mark.parametrize("headers", GOOD)
def test_the_right_content_goes_through_as_it_came(headers: dict[str, str]) -> None:
    assert Digests(headers)
    assert checked(headers, b"cat") == b"cat"
    assert checked(headers, b"c", b"", b"at") == b"cat"


@pytest.mark.parametrize("headers", GOOD)
@pytest.mark.parametrize("content", [b"", b"ca", b"cats", b"cau"])
def test_another_content_is_refused_at_its_end(headers: dict[str, str], content: bytes) -> None:
    with pytest.raises(BadDigest, match="it was changed on its way"):
        checked(headers, content)


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Digest": f"sha-256=:{SHA256}:, sha-512=:{b64('sha512', b'dog')}:"},
        {"Content-Digest": f"sha-256=:{b64('sha256', b'dog')}:, sha-512=:{SHA512}:"},
        {"Content-Digest": f"sha-256=:{SHA256}:", "Content-MD5": b64("md5", b"dog")},
    ],
)
def test_one_wrong_digest_among_right_ones_is_enough(headers: dict[str, str]) -> None:
    with pytest.raises(BadDigest):
        checked(headers, b"cat")


def test_the_refusal_says_which_digest_and_what_it_should_have_been() -> None:
    with pytest.raises(BadDigest, match=rf"is {SHA256.replace('+', '.')}, not what Content-Digest sha-256 says"):
        checked({"Content-Digest": f"sha-256=:{b64('sha256', b'dog')}:"}, b"cat")


@pytest.mark.parametrize(
    "headers",
    [{}, {"Content-Digest": "md5=:AAAA:"}, {"Content-Digest": "sha-384=:AAAA:, crc32c=::"}, {"Digest": "sha-256=x"}],
)
def test_with_no_digest_that_is_known_nothing_is_checked(headers: dict[str, str]) -> None:
    assert not Digests(headers)
    assert checked(headers, b"anything") == b"anything"


@pytest.mark.parametrize(
    "digest",
    [
        "",
        ",",
        "sha-256",
        "sha-256=",
        f"sha-256={SHA256}",
        f'sha-256="{SHA256}"',
        f"sha-256=:{SHA256}",
        f"sha-256:{SHA256}:",
        f"SHA-256=:{SHA256}:",
        f"sha-256=:{SHA256}:;a=1",
        f"sha-256=:{SHA256}:,",
        f"sha-256=:{SHA256[:-1]}:",
        f"sha-256=:{SHA512}:",
        f"sha-512=:{SHA256}:",
        f"sha-256=:{'=' * 44}:",
        "sha-256=::",
        "sha-256=:-_-_:",
        "sha-256=:é:",
        "é",
    ],
)
def test_a_content_digest_that_cant_be_read_is_refused(digest: str) -> None:
    with pytest.raises(BadRequest, match="Content-Digest"):
        Digests({"Content-Digest": digest})


@pytest.mark.parametrize(
    "digest", ["", "x", MD5[:-1], MD5 + MD5, SHA256, hashlib.md5(b"cat").hexdigest(), "é", "ключ", "\udcff", MD5 + "!"]
)
def test_a_content_md5_that_cant_be_read_is_refused(digest: str) -> None:
    with pytest.raises(BadRequest, match=r"Content-MD5: .*is not the base64 of 16 bytes"):
        Digests({"Content-MD5": digest})


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(("Content-Digest", "Content-MD5")), st.text() | st.text("sha-256=:,A; "))
def test_no_header_does_harm(name: str, value: str) -> None:
    try:
        Digests({name: value})
    except BadRequest as refused:
        assert str(refused)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.binary(max_size=100)), st.sampled_from(("sha256", "sha512", "md5")))
def test_any_content_agrees_with_its_own_digest(pieces: list[bytes], name: str) -> None:
    whole = b"".join(pieces)
    digest = b64(name, whole)
    headers = {"Content-MD5": digest} if name == "md5" else {"Content-Digest": f"sha-{name[3:]}=:{digest}:"}
    assert checked(headers, *pieces) == whole
