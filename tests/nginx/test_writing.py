"""Writes through nginx: what a front says reaches the client, and bodies go on as they come."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import socket
from collections.abc import Mapping

import pytest

from tests.nginx.conftest import LARGEST, MIB
from tests.nginx.server import Answer, Nginx
from tests.servers import Service, wait_for

TUS = {"Tus-Resumable": "1.0.0"}
PIECE = {**TUS, "Content-Type": "application/offset+octet-stream"}


def problem(answer: Answer) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status, json.loads(answer.body)["type"].removeprefix("urn:sfss:")


def head_of(method: str, target: str, headers: Mapping[str, str]) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: files.example.org", *(f"{n}: {v}" for n, v in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


@pytest.mark.parametrize("target", ["/file?path={}", "/files?path={}", "/f/{}"])
def test_files_come_and_go(nginx: Nginx, path: str, target: str) -> None:
    url = target.format(path)
    posted = nginx.ask("POST", url, {"Content-Type": "text/x-test"}, b"posted")
    assert (posted.status, posted.headers["location"]) == (201, f"/file?path={path}")
    assert nginx.get(posted.headers["location"]).body == b"posted"
    assert nginx.put(url, b"put").status == 200
    assert nginx.ask("DELETE", url).status == (405 if "/files" in target else 204)
    assert nginx.get(f"/file?path={path}", Cache_Control="no-cache").status == (200 if "/files" in target else 404)


def test_preconditions_are_asked_of_what_is_there_not_of_the_cache(nginx: Nginx, path: str) -> None:
    url = f"/file?path={path}"
    first = nginx.put(url, b"1", If_None_Match="*")
    assert first.status == 200
    assert problem(nginx.put(url, b"2", If_None_Match="*")) == (412, "precondition-failed")
    assert nginx.get(url).body == b"1"
    second = nginx.put(url, b"2", If_Match=first.headers["etag"])
    assert second.status == 200
    assert problem(nginx.put(url, b"3", If_Match=first.headers["etag"])) == (412, "precondition-failed")
    assert nginx.ask("DELETE", url, {"If-Match": first.headers["etag"]}).status == 412
    assert nginx.ask("DELETE", url, {"If-Match": second.headers["etag"]}).status == 204


def test_a_digest_that_doesnt_hold_is_refused_and_nothing_stored(nginx: Nginx, path: str) -> None:
    wrong = base64.b64encode(bytes(32)).decode()
    assert problem(nginx.put(f"/file?path={path}", b"x", Content_Digest=f"sha-256=:{wrong}:")) == (400, "bad-digest")
    assert nginx.get(f"/file?path={path}").status == 404


def test_too_large_is_said_by_the_front_in_its_words(nginx: Nginx, path: str) -> None:
    answer = nginx.put(f"/file?path={path}", bytes(LARGEST + 1))
    assert problem(answer) == (413, "too-large")
    assert json.loads(answer.body)["setting"] == "limits.max_file_size"


def test_too_large_is_said_before_the_body_has_come(nginx: Nginx, path: str) -> None:
    with nginx.connect() as sock:
        sock.sendall(head_of("PUT", f"/file?path={path}", {"Content-Length": str(LARGEST + 1)}) + bytes(1000))
        assert sock.recv(1000).startswith(b"HTTP/1.1 413")


def test_a_form_comes_through(nginx: Nginx, path: str) -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="upload_file"; filename="x"\r\n\r\ncontent\r\n--b--\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    assert nginx.ask("POST", f"/files?path={path}", headers, body).status == 201
    assert nginx.get(f"/file?path={path}").body == b"content"


@pytest.mark.parametrize("chunked", [False, True])
def test_a_large_body_goes_on_as_it_comes_and_is_never_put_aside(nginx: Nginx, path: str, chunked: bool) -> None:
    content = os.urandom(24 * MIB)
    with nginx.connect() as sock:
        how = {"Transfer-Encoding": "chunked"} if chunked else {"Content-Length": str(len(content))}
        sock.sendall(head_of("PUT", f"/file?path={path}", how))
        for start in range(0, len(content), MIB):
            piece = content[start : start + MIB]
            sock.sendall(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
            assert nginx.put_aside() == []
        sock.sendall(b"0\r\n\r\n" if chunked else b"")
        assert sock.recv(1000).startswith(b"HTTP/1.1 200")
    assert nginx.get(f"/file?path={path}").body == content


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
@pytest.mark.parametrize("target", ["/file?path={}", "/f/{}", "/files?prefix={}", "/immutable/{}", "/status"])
def test_a_body_where_none_belongs_is_never_put_aside(nginx: Nginx, path: str, method: str, target: str) -> None:
    for how in ({"Content-Length": str(8 * MIB)}, {"Transfer-Encoding": "chunked"}):
        with nginx.connect() as sock, contextlib.suppress(OSError):  # it may be hung up on
            sock.sendall(head_of(method, target.format(path), how) + b"800000\r\n")
            for _ in range(7):
                sock.sendall(bytes(MIB))
                assert nginx.put_aside() == []


def test_a_body_that_breaks_off_leaves_what_was_there(nginx: Nginx, path: str) -> None:
    url = f"/file?path={path}"
    nginx.put(url, b"before")
    for how in ({"Content-Length": "5000000"}, {"Transfer-Encoding": "chunked"}):
        with nginx.connect() as sock:
            sock.sendall(head_of("PUT", url, how) + b"f4240\r\n" + bytes(1_000_000))
    assert nginx.get(url, If_Match="*").body == b"before"


def test_a_resumable_upload_goes_on_where_it_broke_off(nginx: Nginx, path: str) -> None:
    content = os.urandom(6 * MIB)
    made = nginx.ask("POST", f"/uploads?path={path}", {**TUS, "Upload-Length": str(len(content))}, b"")
    upload = made.headers["location"]
    assert (made.status, upload[:9]) == (201, "/uploads/")
    with nginx.connect() as sock:
        how = {**PIECE, "Upload-Offset": "0", "Content-Length": str(len(content))}
        sock.sendall(head_of("PATCH", upload, how) + content[: 4 * MIB])

    def offset() -> int:
        head = nginx.ask("HEAD", upload, TUS)
        assert (head.status in (200, 423), head.headers["cache-control"]) == (True, "no-store")
        return int(head.headers.get("upload-offset", 0))

    wait_for(lambda: offset() > 0, what="the upload to have kept what came")
    # Who asks HEAD ends the request before: from here on it stays where it is.
    start = offset()
    rest = nginx.ask("PATCH", upload, {**PIECE, "Upload-Offset": str(start)}, content[start:])
    assert (rest.status, rest.headers["upload-offset"]) == (204, str(len(content)))
    assert nginx.get(f"/file?path={path}").body == content


def test_a_piece_at_the_wrong_offset_is_the_front_s_409(nginx: Nginx, path: str) -> None:
    made = nginx.ask("POST", f"/uploads?path={path}", {**TUS, "Upload-Length": "9"}, b"")
    piece = nginx.ask("PATCH", made.headers["location"], {**PIECE, "Upload-Offset": "5"}, b"1234")
    assert problem(piece) == (409, "upload-conflict")


def test_a_client_that_asks_for_leave_to_send_gets_it(nginx: Nginx, path: str) -> None:
    with nginx.connect() as sock:
        how = {"Content-Length": "5", "Expect": "100-continue"}
        sock.sendall(head_of("PUT", f"/file?path={path}", how))
        assert sock.recv(1000).startswith(b"HTTP/1.1 100")
        sock.sendall(b"12345")
        assert sock.recv(1000).startswith(b"HTTP/1.1 200")


def test_direct_and_through_nginx_are_the_same_files(nginx: Nginx, front: Service, path: str) -> None:
    nginx.put(f"/file?path={path}", b"through")
    with socket.create_connection((front.host, front.port), 10) as sock:
        sock.sendall(head_of("GET", f"/file?path={path}", {"Connection": "close"}))
        assert sock.makefile("rb").read().endswith(b"\r\n\r\nthrough")
