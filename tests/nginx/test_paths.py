"""Clean URLs, /f/P and /immutable/P: each name means just its own path, however it is written, and no other place."""

from __future__ import annotations

import json
import string
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.nginx.server import Nginx
from tests.servers import Service

NASTY = [
    "a&b.txt", "a+b.txt", "a%b", "a?b", "a#b", "a=b", "a;b", "a b", " a", "a ", "&", "+", "%", "?", "a&", "&a",
    "a&b+c d%e?f", "%2e%2e", "%2e%2e%2fetc", "%25", "%26", "%2B", "a%26b", "...", ".hidden", "a..", "..a", "~",
    "*", "-rf", "$uri", "${args}", "$document_root", "a:b", "C:", "'", '"', "a'b\"c", "<b>", "{}", "[1]", "(x)",
    "|", "^", "`id`", "!", "@", ",", "é", "e\u0301", "фото/кот 1.jpg", "日本", "🐈", "\u2028", "\u00a0",
    "deep/b/c", "A", "a", "f/f/f", "path=x", "path=x&path=y", "index.html", "x.php", "x.html", "a&b&c&d&e&f",
    "a&b&c&d&e", "&&", "x" * 255, "x" * 256, "é" * 128, "d/" * 300 + "e", "x" * 900,
]  # fmt: skip
ALLOWED = "/" + string.ascii_letters + string.digits + "-._~!$&'()*+,;=:@"  # what RFC 3986 lets stand in a path


def contents() -> dict[str, bytes]:
    return {name: f"I am {name!r}".encode() for name in NASTY}


def spellings(name: str) -> set[str]:
    """Of one name in a URL's path: as much encoded as can be, as little, and slashes too."""
    found = {quote(name, safe="/"), quote(name, safe=ALLOWED), quote(name, safe="")}
    return {text for text in found if "%" in text or "+" in text or text.count("&") <= 5}


@pytest.fixture(scope="module")
def stored(front: Service, nginx: Nginx) -> dict[str, bytes]:
    """All of them below both prefixes, put there by a front's own URL."""
    for name, content in contents().items():
        for prefix in ("paths/", "immutable/paths/"):
            assert nginx.put(f"/file?path={quote(prefix + name, safe='')}", content).status == 200, name
    return contents()


def test_a_file_is_read_by_its_clean_url(nginx: Nginx, stored: dict[str, bytes]) -> None:
    for _ in range(2):
        for name, content in stored.items():
            for spelled in spellings(name):
                answer = nginx.get(f"/f/paths/{spelled}")
                assert (answer.status, answer.body) == (200, content), spelled


def test_a_file_is_stored_under_its_own_name_and_read_back(nginx: Nginx, stored: dict[str, bytes]) -> None:
    for which in ("STORING", "STORED"):
        for name, content in stored.items():
            for spelled in spellings(name):
                answer = nginx.get(f"/immutable/paths/{spelled}")
                assert (answer.status, answer.body) == (200, content), spelled
            fits = all(len(part.encode()) < 256 for part in name.split("/"))
            assert (answer.cached in (which, "STORED")) == fits, (name, answer)
    root = nginx.stored / "immutable" / "paths"
    found = {str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*") if file.is_file()}
    assert found.items() <= stored.items()
    assert len(found) == sum(all(len(part.encode()) < 256 for part in name.split("/")) for name in stored)
    assert "File name too long" not in nginx.log.read_text()


@pytest.mark.parametrize("prefix", ["f/write/", "immutable/write/"])
def test_a_file_is_written_by_its_clean_url(nginx: Nginx, prefix: str) -> None:
    for name, content in contents().items():
        target = f"/{prefix}{min(spellings(name), key=len)}"
        path = quote((prefix + name).removeprefix("f/"), safe="")
        assert nginx.put(target, content).status == 200
        found = nginx.get(f"/file?path={path}")
        assert (found.status, found.body) == (200, content), target


REFUSED = [
    "", "/a", "a//b", "a/", "a%0Ab", "a%0A", "%0Aa", "a%0D%0Ab", "a%5Cb", "%2Fa", "a%00", "a%00b", "%FF",
    "a%C3", "a%7Fb", "..%5Cx", "a%", "a%2", "a%zz", "x" * 1025, "a/%2e%2e%2f%2e%2e/%2e%2e/x", "../x", "..", ".",
    "a/../../../x", "....//x", "%2e%2e/%2e%2e/etc/passwd", "..%2f..%2f..%2fetc%2fpasswd", "../../secret",
    "%2e%2e%2f%2e%2e%2fsecret", "a/../../../secret", "a&b/../../../../secret", "a&b&c&d&e&f&g",
]  # fmt: skip


@pytest.mark.parametrize("prefix", ["/f/", "/immutable/"])
def test_what_can_t_be_a_path_is_refused_and_nothing_is_laid_down(nginx: Nginx, prefix: str) -> None:
    (nginx.directory / "secret").write_text("secret")
    (nginx.directory / "lib" / "secret").write_text("secret")
    before = sorted(nginx.directory.rglob("*"))
    for text in REFUSED:
        for method in ("GET", "PUT"):
            answer = nginx.ask(method, f"{prefix}{text}", None, b"x" if method == "PUT" else None)
            assert answer.status in (400, 404, 405), (method, text, answer)
            assert b"secret" not in answer.body or b"urn:sfss" in answer.body
    changed = [file for file in sorted(nginx.directory.rglob("*")) if file not in before and file.is_file()]
    assert [file for file in changed if "sfss-cache" not in file.parts] == []


@pytest.mark.parametrize("internal", ["/sfss-range", "/sfss-front", "/sfss-write", "/@sfss_store"])
def test_nginx_s_own_places_can_t_be_asked_for(nginx: Nginx, internal: str) -> None:
    for method in ("GET", "PUT", "DELETE"):
        assert nginx.ask(method, f"{internal}?path=a", None, b"").status == 404


def test_more_ampersands_than_can_be_told_apart_are_refused_with_what_to_do(nginx: Nginx) -> None:
    answer = nginx.get("/f/1&2&3&4&5&6&7")
    assert answer.status == 400
    assert "%26" in json.loads(answer.body)["detail"]


def test_a_query_of_the_client_s_own_changes_nothing(nginx: Nginx, stored: dict[str, bytes]) -> None:
    for prefix in ("/f/paths/", "/immutable/paths/"):
        for query in ("path=paths/A", "x", "a%26b", "?", "&path=paths/A"):
            assert nginx.get(f"{prefix}a?{query}").body == stored["a"]
            assert nginx.get(f"{prefix}a&b.txt?{query}").body == stored["a&b.txt"]


def test_a_name_that_is_a_file_s_and_a_folder_s_is_read_as_both(nginx: Nginx) -> None:
    for first, second in (("d1", "d1/e"), ("d2/e", "d2")):
        for name in (first, second):
            assert nginx.put(f"/file?path=immutable/both/{name}", name.encode()).status == 200
        for _ in range(2):
            for name in (first, second):
                assert nginx.get(f"/immutable/both/{name}").body == name.encode()


def test_nothing_outside_the_store_is_ever_read(nginx: Nginx, tmp_path: Path) -> None:
    (nginx.stored / "elsewhere").write_text("elsewhere")
    for target in ("/immutable/../elsewhere", "/immutable/%2e%2e/elsewhere", "/immutable/..%2felsewhere", "/elsewhere"):
        assert nginx.get(target).status in (400, 404)
