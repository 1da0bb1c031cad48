"""Forms: the same file however the body comes in pieces, from curl, browsers and whoever else speaks RFC 7578."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfss.errors import BadBody, BadRequest, TooLarge
from sfss.web.forms import MAX_ASIDE, Form

BOUNDARY = "------------------------d74496d66958873e"
CONTENT_TYPE = f"multipart/form-data; boundary={BOUNDARY}"
LARGEST = 100_000  # of a file that has to be kept, below

ordinary = settings(deadline=None, max_examples=200)

Found = tuple[bytes, str | None]


def check_size(size: int) -> None:
    if size > LARGEST:
        raise TooLarge("too large", limit=LARGEST, setting="limits.max_file_size")


def found(pieces: Iterable[bytes], content_type: str = CONTENT_TYPE) -> Found:
    """The file of a form, and the type that came with it."""

    async def body() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    async def read() -> Found:
        form = Form(content_type, check_size)
        content = b"".join([piece async for piece in form.file(body())])
        return content, form.type

    return asyncio.run(read())


def part(content: bytes, disposition: str, *headers: str, boundary: str = BOUNDARY) -> bytes:
    lines = [f"--{boundary}", f"Content-Disposition: form-data; {disposition}", *headers, "", ""]
    return "\r\n".join(lines).encode() + content + b"\r\n"


def upload_file(content: bytes, *headers: str) -> bytes:
    return part(content, 'name="upload_file"; filename="a.bin"', *headers)


def other_file(content: bytes, *headers: str, name: str = "file") -> bytes:
    return part(content, f'name="{name}"; filename="b.bin"', *headers)


def field(content: bytes, name: str = "comment") -> bytes:
    return part(content, f'name="{name}"')


def whole(*parts: bytes) -> bytes:
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


# --- which part is the file ---


def test_upload_file_is_the_file() -> None:
    assert found([whole(upload_file(b"cat", "Content-Type: image/png"))]) == (b"cat", "image/png")


@pytest.mark.parametrize("others", [0, 1, 2])
def test_upload_file_wins_over_files_before_and_behind_it(others: int) -> None:
    dogs = [other_file(b"dog", "Content-Type: image/gif")] * others
    assert found([whole(*dogs, upload_file(b"cat", "Content-Type: image/png"), *dogs)]) == (b"cat", "image/png")


def test_upload_file_needs_no_file_name() -> None:
    assert found([whole(part(b"cat", 'name="upload_file"'))]) == (b"cat", "")


def test_else_the_first_part_with_a_file_name_is_the_file() -> None:
    form = whole(field(b"mine"), other_file(b"dog", "Content-Type: image/gif"), other_file(b"cow"), field(b"yours"))
    assert found([form]) == (b"dog", "image/gif")


@pytest.mark.parametrize("make", [upload_file, other_file])
def test_a_file_may_be_empty(make: Callable[[bytes], bytes]) -> None:
    assert found([whole(make(b""))]) == (b"", "")


@pytest.mark.parametrize("field_name", ["upload_file", "other"])
def test_a_browsers_form_in_which_no_file_was_chosen_holds_none(field_name: str) -> None:
    nothing = part(b"", f'name="{field_name}"; filename=""', "Content-Type: application/octet-stream")
    with pytest.raises(BadBody, match="holds no file"):
        found([whole(nothing, field(b"comment"))])


def test_an_empty_upload_file_wins_too() -> None:
    assert found([whole(other_file(b"dog"), upload_file(b""))]) == (b"", "")


# --- any split of the bytes ---

_NEAR_BOUNDARIES = st.sampled_from(
    (
        b"\r",
        b"\n",
        b"\r\n",
        b"-",
        b"\r\n--",
        f"\r\n--{BOUNDARY[:-1]}".encode(),
        f"\r\n--{BOUNDARY[:-1]}x\r\n".encode(),
        f"--{BOUNDARY}--".encode(),
        f"\n--{BOUNDARY}--\n".encode(),
        f"\r\r\n--{BOUNDARY[:-1]}".encode(),
    )
)
CONTENTS = (
    st.lists(st.binary(max_size=30) | _NEAR_BOUNDARIES, max_size=8)
    .map(b"".join)
    .filter(lambda content: f"\r\n--{BOUNDARY}".encode() not in content)
)


@ordinary
@given(CONTENTS, CONTENTS, st.lists(st.integers(0, 3000), max_size=20), st.booleans())
def test_the_file_is_the_same_however_the_body_is_split(
    file: bytes, other: bytes, cuts: list[int], is_upload_file: bool
) -> None:
    make = upload_file if is_upload_file else other_file
    form = whole(field(other), make(file, "Content-Type: text/plain"), field(other, "more"))
    cuts = sorted(cut % (len(form) + 1) for cut in cuts)
    pieces = [form[a:b] for a, b in zip([0, *cuts], [*cuts, len(form)], strict=True)]
    assert found(pieces) == found([form]) == (file, "text/plain")


@settings(deadline=None, max_examples=50)
@given(CONTENTS, CONTENTS)
def test_the_file_is_the_same_if_every_byte_comes_alone(file: bytes, other: bytes) -> None:
    form = whole(other_file(other), upload_file(file))
    assert found(form[n : n + 1] for n in range(len(form))) == (file, "")


def test_every_byte_and_a_large_file_come_through() -> None:
    content = bytes(range(256)) * 8192
    form = whole(upload_file(content))
    assert found(form[n : n + 65_536] for n in range(0, len(form), 65_536))[0] == content


def test_upload_file_is_handed_on_as_it_comes() -> None:
    async def read() -> None:
        handed_on = bytearray()
        form = whole(upload_file(b"x" * 1000))

        async def body() -> AsyncIterator[bytes]:
            yield form[:600]
            assert len(handed_on) > 300
            yield form[600:]

        async for piece in Form(CONTENT_TYPE, check_size).file(body()):
            handed_on += piece

    asyncio.run(read())


# --- the shapes that clients give it ---


@pytest.mark.parametrize(
    "disposition",
    [
        'name="upload_file"; filename="README.rst"',
        'name="upload_file"; filename="кот.jpg"',
        'name="upload_file"; filename="猫 😀.jpg"',
        'name="upload_file"; filename="a \\"quoted\\" name.jpg"',
        'name="upload_file"; filename="a %22quoted%22 name.jpg"',
        'name="upload_file"; filename="semi;colon=1.jpg"',
        'name="upload_file"; filename="C:\\\\photos\\\\cat.jpg"',
        'name="upload_file"; filename=""',
        'name="upload_file"; filename="cat.jpg"; filename*=UTF-8\'\'%D0%BA%D0%BE%D1%82.jpg',
        "name=\"upload_file\"; filename*=UTF-8''%D0%BA%D0%BE%D1%82.jpg",
        "name=upload_file; filename=cat.jpg",
        'filename="cat.jpg"; name="upload_file"',
        'name="upload_file";filename="cat.jpg"',
    ],
)
def test_a_file_name_may_be_written_in_any_way(disposition: str) -> None:
    assert found([whole(part(b"cat", disposition))]) == (b"cat", "")


def test_header_names_may_be_written_in_any_case() -> None:
    form = (
        f"--{BOUNDARY}\r\n"
        'content-disposition: form-data; name="upload_file"; filename="a"\r\n'
        "CONTENT-TYPE: image/png\r\n"
        f"X-Else: 1\r\n\r\ncat\r\n--{BOUNDARY}--\r\n"
    )
    assert found([form.encode()]) == (b"cat", "image/png")


@pytest.mark.parametrize(
    ("boundary", "content_type"),
    [
        (
            "----WebKitFormBoundaryeQZ9pSjQpPj0vV1m",
            "multipart/form-data; boundary=----WebKitFormBoundaryeQZ9pSjQpPj0vV1m",
        ),
        ("----geckoformboundary1f", "multipart/form-data; boundary=----geckoformboundary1f"),
        ("a b", 'multipart/form-data; boundary="a b"'),
        ("=_x:1", 'multipart/form-data; boundary="=_x:1"'),
        ("b", 'multipart/form-data; charset=utf-8; boundary="b"'),
        ("b", "Multipart/Form-Data;boundary=b"),
    ],
)
def test_a_boundary_may_be_quoted_and_anything(boundary: str, content_type: str) -> None:
    form = part(b"cat", 'name="upload_file"; filename="a"', boundary=boundary) + f"--{boundary}--\r\n".encode()
    assert found([form], content_type) == (b"cat", "")


@pytest.mark.parametrize("before", [b"\r\n", b"\r\n\r\n"])
@pytest.mark.parametrize("behind", [b"", b"\r\n", b"\r\nan epilogue, which nobody reads"])
def test_what_stands_around_the_parts_is_nothing(before: bytes, behind: bytes) -> None:
    assert found([before + whole(upload_file(b"cat")) + behind]) == (b"cat", "")


def test_the_last_line_may_lack_its_end() -> None:
    assert found([whole(upload_file(b"cat")).removesuffix(b"\r\n")]) == (b"cat", "")


# --- what is refused ---


@pytest.mark.parametrize(
    "parts", [[], [field(b"text")], [field(b"x"), field(b"y", "file")]], ids=["nothing", "a field", "two fields"]
)
def test_a_form_without_a_file_is_refused(parts: list[bytes]) -> None:
    with pytest.raises(BadBody, match="the form holds no file: send it as the part upload_file"):
        found([whole(*parts)])


@pytest.mark.parametrize("make", [upload_file, other_file])
def test_a_form_cut_off_anywhere_before_its_end_is_refused(make: Callable[[bytes], bytes]) -> None:
    form = whole(make(b"cat")).removesuffix(b"--\r\n")
    for end in range(len(form) + 1):
        with pytest.raises(BadBody, match="ends before its closing boundary"):
            found([form[:end]])


def test_two_upload_files_are_refused() -> None:
    with pytest.raises(BadBody, match="upload_file twice"):
        found([whole(upload_file(b"cat"), upload_file(b"dog"))])


@pytest.mark.parametrize(
    "parts",
    [
        [field(b"x" * MAX_ASIDE), upload_file(b"cat")],
        [upload_file(b"cat"), field(b"x" * MAX_ASIDE)],
        [upload_file(b"cat"), other_file(b"x" * MAX_ASIDE)],
        [other_file(b"cat"), other_file(b"x" * MAX_ASIDE)],
        [field(b"x", name=f"field{n}") for n in range(1000)],
    ],
    ids=["field before", "field behind", "other file behind", "second file behind", "many fields"],
)
def test_too_much_beside_the_file_is_refused(parts: list[bytes]) -> None:
    form = whole(*parts)
    for size in (1000, len(form)):
        with pytest.raises(BadBody, match="more than 65536 bytes beside its file: send the file alone"):
            found(form[n : n + size] for n in range(0, len(form), size))


@pytest.mark.parametrize("header", ["X: " + "x" * 70_000, "x" * 70_000 + ": x"])
def test_headers_without_measure_are_refused(header: str) -> None:
    with pytest.raises(BadBody):
        found([whole(upload_file(b"cat", header))])


def test_a_file_that_has_to_be_kept_is_given_up_as_soon_as_it_is_too_large() -> None:
    form = other_file(b"x" * (LARGEST + 10_000))
    taken: list[int] = []

    def pieces() -> Iterable[bytes]:
        for n in range(0, len(form), 1000):
            taken.append(n)
            yield form[n : n + 1000]

    with pytest.raises(TooLarge):
        found(pieces())
    assert taken[-1] <= LARGEST + 1000


@pytest.mark.parametrize(
    "body",
    [
        b"cat",
        b"a preamble, which RFC 2046 allows and no client of HTTP sends\r\n" + whole(upload_file(b"cat")),
        b"--other\r\n\r\ncat\r\n--other--\r\n",
        f"--{BOUNDARY}x".encode(),
        f"--{BOUNDARY}\r\nno header\r\n\r\ncat".encode(),
        f"--{BOUNDARY}\r\n: no name\r\n\r\ncat".encode(),
        f"--{BOUNDARY}\r\nContent-Disposition: x\rcat".encode(),
    ],
)
def test_what_is_no_form_is_refused(body: bytes) -> None:
    with pytest.raises(BadBody, match="the multipart body can't be read"):
        found([body])


@pytest.mark.parametrize(
    "content_type",
    ["multipart/form-data", "multipart/form-data; boundary=", 'multipart/form-data; boundary=""',
     "multipart/mixed; boundary=b", "multipart/form-data; charset=utf-8"],
)  # fmt: skip
def test_another_kind_of_body_is_refused(content_type: str) -> None:
    with pytest.raises(BadRequest, match="not multipart/form-data with a boundary"):
        found([], content_type)


def test_a_boundary_without_measure_is_refused() -> None:
    with pytest.raises(BadRequest, match="Content-Type: "):
        found([], "multipart/form-data; boundary=" + "x" * 5000)


@ordinary
@given(st.lists(st.binary(max_size=40) | _NEAR_BOUNDARIES | st.just(upload_file(b"")[:-2]), max_size=6))
def test_nothing_that_comes_is_answered_otherwise_than_by_a_file_or_a_refusal(pieces: list[bytes]) -> None:
    try:
        content, _ = found([f"--{BOUNDARY}\r\n".encode(), *pieces, f"\r\n--{BOUNDARY}--".encode()])
        assert isinstance(content, bytes)
    except BadBody as refused:
        assert str(refused)


async def test_the_file_s_size_is_told_before_it_has_come() -> None:
    content = b"x" * 300_000
    body = field(b"words") + upload_file(content) + f"--{BOUNDARY}--\r\n".encode()
    form = Form(CONTENT_TYPE, lambda size: None)
    told = set()

    async def chunks() -> AsyncIterator[bytes]:
        for at in range(0, len(body), 65_536):
            yield body[at : at + 65_536]

    async for _ in form.file(chunks()):
        told.add(len(body) - form.beside)
    assert told == {len(content)}
