"""Content types: guessed alike on every machine, and kept only if they are some."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given as given_by
from hypothesis import settings
from hypothesis import strategies as st

from sfss.errors import BadRequest
from sfss.web.content_types import UNKNOWN, given, guess


@pytest.mark.parametrize(
    ("path", "type"),
    [
        ("cat.jpg", "image/jpeg"),
        ("photos/2026/cat.jpeg", "image/jpeg"),
        ("кот.png", "image/png"),
        ("CAT.JPG", "image/jpeg"),
        ("Cat.Png", "image/png"),
        ("page.html", "text/html"),
        ("style.css", "text/css"),
        ("data.json", "application/json"),
        ("film.mp4", "video/mp4"),
        ("cat.webp", "image/webp"),
        ("cat.avif", "image/avif"),
        ("notes.md", "text/markdown"),
        ("font.woff2", "font/woff2"),
        ("table.xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
        ("paper.pdf", "application/pdf"),
        # no URLs
        ("a?b.png", "image/png"),
        ("a.png?b", UNKNOWN),
        ("a#b.png", "image/png"),
        ("data:,x.jpg", "image/jpeg"),
        ("data:text/html,x", UNKNOWN),
        ("data:text/html,x.png", "image/png"),
        ("http://host/x.gif", "image/gif"),
        ("c:x.gif", "image/gif"),
        ("[x].gif", "image/gif"),
        ("100%/a%2Epng", UNKNOWN),
        # compressed: what it is compressed with
        ("x.tar.gz", "application/gzip"),
        ("x.tgz", "application/gzip"),
        ("x.gz", "application/gzip"),
        ("page.html.gz", "application/gzip"),
        ("x.svgz", "application/gzip"),
        ("x.tar.bz2", "application/x-bzip2"),
        ("x.tar.xz", "application/x-xz"),
        ("x.tar.Z", "application/x-compress"),
        ("x.html.br", UNKNOWN),
        ("X.TAR.GZ", "application/gzip"),
        ("X.TGZ", "application/gzip"),
        ("x.zip", "application/zip"),
        ("x.7z", "application/x-7z-compressed"),
        # nothing to go by
        ("README", UNKNOWN),
        ("x.", UNKNOWN),
        ("x.unheardof", UNKNOWN),
        (".png", UNKNOWN),
        ("photos.png/README", UNKNOWN),
        ("...", UNKNOWN),
        (" ", UNKNOWN),
    ],
)
def test_a_type_is_guessed_from_the_last_extension(path: str, type: str) -> None:
    assert guess(path) == type


@settings(deadline=None, max_examples=300)
@given_by(st.text() | st.text("ab.:/?#%,;[]@ ").map(lambda text: text + ".png"))
def test_every_path_has_some_type(path: str) -> None:
    assert given(guess(path)) in (guess(path), None)


def test_the_machines_own_tables_change_nothing(tmp_path: Path) -> None:
    (tmp_path / "mime.types").write_text("text/evil png\n")
    code = (
        f"import mimetypes; mimetypes.knownfiles[:] = [{str(tmp_path / 'mime.types')!r}]; "
        "from sfss.web.content_types import guess; print(mimetypes.guess_type('x.png')[0], guess('x.png'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["text/evil", "image/png"]


@pytest.mark.parametrize(
    "header",
    ["image/jpeg", "text/plain; charset=utf-8", "text/plain;charset=UTF-8", 'text/plain; charset="utf-8"',
     "application/vnd.api+json", "a/b;c=d;e=f", 'a/b; c="d; e"', "a/b;", "x-y/!#$%&'*+.^_`|~-", "a/" + "b" * 253],
)  # fmt: skip
def test_a_media_type_is_kept_as_it_was_given(header: str) -> None:
    assert given(header) == header
    assert given(f" {header}\t") == header


@pytest.mark.parametrize(
    "header",
    [None, "", " ", UNKNOWN, "Application/Octet-Stream", "application/octet-stream; charset=binary",
     "application/x-www-form-urlencoded", "application/x-www-form-urlencoded; charset=utf-8", ";"],
)  # fmt: skip
def test_what_clients_send_who_know_nothing_means_nothing(header: str | None) -> None:
    assert given(header) is None


@pytest.mark.parametrize(
    "header",
    ["image", "image/", "/jpeg", "image/jpeg/x", "image jpeg", "image/jp eg", "text/plain charset=utf-8",
     "text/plain; charset", "text/plain; charset=", 'text/plain; charset="utf-8', "text/html, text/plain", "image/jpég",
     "a/b\r\nX: y", "a/b\0", "a/b\x7f", "<script>/b", "*/*x y", "a/" + "b" * 254, "a/b; c=" + "d" * 300],
)  # fmt: skip
def test_what_is_no_media_type_is_refused(header: str) -> None:
    with pytest.raises(BadRequest, match=r"is no media type: send one like image/jpeg, or none"):
        given(header)


@pytest.mark.parametrize("text", ["a/b" + "; " * 4096, "a/b" + ";" * 8192, "a/b;" + " " * 8192, "a/b;" + "c=d;" * 2048])
@pytest.mark.parametrize("end", ["x", '"', "="])
def test_no_header_of_8_kilobytes_takes_long(text: str, end: str) -> None:
    started = time.thread_time()
    with pytest.raises(BadRequest):
        given(text + end)
    assert time.thread_time() - started < 0.1
