"""Namespaces behind nginx: files have their URLs, and no URL that nginx reads otherwise gets into one that is shut."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator

import pytest

from tests.nginx.server import Nginx
from tests.servers import Service, wait_for


@pytest.fixture(scope="module")
def namespaces(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    """``open`` and ``shut``, which has a file, through nginx."""
    directory = tmp_path_factory.mktemp("front")
    configuration = directory / "sfss.toml"

    def configure(enabled: str) -> None:
        configuration.write_text(f'[[namespace]]\nname = "open"\n[[namespace]]\nname = "shut"\nenabled = {enabled}\n')

    configure("true")
    with Service(directory, "--config", str(configuration)) as front:
        for path in ("shut/a", "shut/a/b", "shut/..a"):
            _put(front, path, b"secret")
    configure("false")
    with front, Nginx(tmp_path_factory.mktemp("nginx"), [front.port]).running() as running:
        wait_for(front.all_nodes_are_here)
        yield running


def _put(front: Service, path: str, content: bytes) -> None:
    request = urllib.request.Request(f"{front.url}/file?path={path}", data=content, method="PUT")
    urllib.request.urlopen(request, timeout=10).close()


def test_files_have_their_urls_and_ids(namespaces: Nginx) -> None:
    assert namespaces.put("/open/%D1%84/cat%201.txt", b"cat").status == 200
    assert namespaces.get("/open/%D1%84/cat%201.txt").body == b"cat"
    assert namespaces.get("/f/open/%D1%84/cat%201.txt").body == b"cat"
    posted = namespaces.ask("POST", "/files", {"Content-Disposition": 'attachment; filename="cat.txt"'}, b"by id")
    told = json.loads(posted.body)
    found = namespaces.get(told["url"])
    assert (found.body, found.headers["content-disposition"]) == (b"by id", 'attachment; filename="cat.txt"')
    assert namespaces.ask("DELETE", told["url"]).status == 204
    assert namespaces.get("/health").status == 200


@pytest.mark.parametrize(
    "url",
    ["/shut/a", "/file?path=shut/a", "/f/shut/a", "/f/open/../shut/a", "/f/%2e%2e/shut/a", "/open/../shut/a",
     "/open/..%2Fshut/a", "/open%2F..%2Fshut/a", "/%73hut/a", "/shut%2Fa", "/shut%2Fa/b", "/./shut/a", "//shut/a",
     "/f//shut/a", "/f/./shut/a", "/shut/./a", "/shut/x/../a", "/shut/%2e%2ea", "/f/shut%2Fa", "/file?path=shut%2Fa",
     "/file?path=open/../shut/a", "/immutable/../shut/a", "/files/../shut/a", "/shut/a?path=open/a", "/shut/a;x",
     "/f/shut/a?path=open/a", "/uploads/../shut/a", "/SHUT/a", "/shut/a%00", "/shut/a%0A", "/shut/a/b"],
)  # fmt: skip
def test_nothing_gets_into_one_that_is_shut(namespaces: Nginx, url: str) -> None:
    for method in ("GET", "GET", "PUT", "DELETE"):  # the second one of what may be cached
        answer = namespaces.ask(method, url, {}, b"x" if method == "PUT" else None)
        assert answer.status in (400, 403, 404), (method, url, answer)
        assert b"secret" not in answer.body
