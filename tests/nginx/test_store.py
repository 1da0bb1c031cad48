"""/immutable/: what nginx lays down itself, and what must never be laid down."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from pathlib import Path

import pytest

from tests.nginx.server import Nginx
from tests.servers import HOST, Service, free_port, wait_for

CONTENT = b"never changed"


@pytest.fixture
def url(nginx: Nginx, path: str) -> str:
    assert nginx.put(f"/file?path=immutable/{path}", CONTENT, Content_Type="text/x-test", X_Meta_A="1").status == 200
    return f"/immutable/{path}"


def file_of(nginx: Nginx, url: str) -> Path:
    return nginx.stored / url[1:]


def test_a_file_is_asked_for_once_and_is_nginx_s_own_from_then_on(nginx: Nginx, url: str) -> None:
    first, second = nginx.get(url), nginx.get(url)
    assert (first.cached, second.cached) == ("STORING", "STORED")
    assert file_of(nginx, url).read_bytes() == CONTENT
    for answer in (first, second):
        expected = {"x-content-type-options": "nosniff", "content-security-policy": "sandbox", "accept-ranges": "bytes",
                    "cache-control": "public, max-age=31536000, immutable", "content-length": "13"}  # fmt: skip
        assert (answer.status, answer.body) == (200, CONTENT)
        assert expected.items() <= answer.headers.items()
    assert first.headers["last-modified"] == second.headers["last-modified"]
    # What nginx doesn't know, as its page says: the type is the extension's.
    assert (first.headers["content-type"], second.headers["content-type"]) == ("text/x-test", "text/plain")
    assert "etag" not in first.headers
    assert nginx.get(url, If_None_Match=second.headers["etag"]).status == 304
    assert nginx.get(url, If_Modified_Since=first.headers["last-modified"]).status == 304
    assert nginx.get(url, Range="bytes=0-4").body == CONTENT[:5]
    assert nginx.get(url, Range="bytes=0-4", If_Range=second.headers["etag"]).status == 206


def test_it_stays_when_it_is_deleted_until_it_is_removed_from_the_store(nginx: Nginx, url: str) -> None:
    nginx.get(url)
    assert nginx.ask("DELETE", url).status == 204
    assert nginx.get(url).body == CONTENT
    file_of(nginx, url).unlink()
    wait_for(lambda: nginx.get(url).status == 404, what="nginx to look again (open_file_cache_valid)")


def test_only_a_whole_file_of_a_get_is_laid_down(nginx: Nginx, url: str) -> None:
    etag = nginx.ask("HEAD", f"/file?path={url[1:]}").headers["etag"]
    assert nginx.ask("HEAD", url).headers["content-length"] == "13"
    assert nginx.get(url, Range="bytes=0-4").body == CONTENT[:5]
    assert nginx.get(url, If_None_Match=etag).status == 304
    assert nginx.get(url, If_Match='"x"').status == 412
    assert nginx.put(url, CONTENT).status == 200
    assert nginx.ask("POST", url, None, CONTENT).status == 201
    assert nginx.ask("DELETE", url).status == 204
    assert nginx.get(url).status == 404
    assert not file_of(nginx, url).exists()


def test_an_empty_file_is_one(nginx: Nginx, path: str) -> None:
    nginx.put(f"/immutable/{path}")
    for cached in ("STORING", "STORED"):
        answer = nginx.get(f"/immutable/{path}")
        assert (answer.status, answer.body, answer.cached) == (200, b"", cached)


def test_head_of_an_empty_file_may_be_laid_down_for_it_is_whole(nginx: Nginx, path: str) -> None:
    nginx.put(f"/immutable/{path}")
    assert nginx.ask("HEAD", f"/immutable/{path}").headers["content-length"] == "0"
    assert nginx.get(f"/immutable/{path}").body == b""


def test_a_write_by_its_url_is_create_only_where_that_is_asked_for(nginx: Nginx, path: str) -> None:
    assert nginx.put(f"/immutable/{path}", b"1", If_None_Match="*").status == 200
    assert nginx.get(f"/immutable/{path}").body == b"1"
    refused = nginx.put(f"/immutable/{path}", b"2", If_None_Match="*")
    assert (refused.status, json.loads(refused.body)["type"]) == (412, "urn:sfss:precondition-failed")


def test_a_file_that_can_t_be_laid_down_comes_all_the_same(tmp_path: Path, front: Service) -> None:
    nginx = Nginx(tmp_path, [front.port], tls=False)
    nginx.stored.rmdir()
    nginx.stored.write_text("no directory")
    with nginx.running():
        nginx.put("/file?path=immutable/elsewhere", CONTENT)
        for _ in range(2):
            answer = nginx.get("/immutable/elsewhere")
            assert (answer.status, answer.body, answer.cached) == (200, CONTENT, "STORING")


def test_what_breaks_off_is_not_laid_down(tmp_path: Path) -> None:
    port = free_port()
    nginx = Nginx(tmp_path, [port], tls=False)
    with socket.create_server((HOST, port)) as listening, nginx.running():
        cutting = threading.Thread(target=_answer_in_part, args=(listening,))
        cutting.start()
        with pytest.raises(http.client.IncompleteRead) as cut:
            nginx.get("/immutable/cut")
        assert cut.value.partial == bytes(1000)
        cutting.join()
        assert nginx.kept() == set()


def _answer_in_part(listening: socket.socket) -> None:
    """A front that is killed while it answers."""
    sock, _ = listening.accept()
    with sock:
        sock.recv(4096)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n" + bytes(1000))
