"""nginx before ``sfss post``: the second read never reaches the front, and only what is whole is laid down."""

from __future__ import annotations

import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import pytest

from sfss.access import signing
from tests.nginx.server import Answer, Nginx
from tests.nginx.test_paths import NASTY, REFUSED, spellings
from tests.post.conftest import Post
from tests.post.nginx import CONF, PostNginx
from tests.servers import HOST, free_port, wait_for

MIB = 2**20
CONTENT = b"never changed"
SECRET = "a-signing-secret-of-the-tests"
HARMLESS = {"x-content-type-options": "nosniff", "content-security-policy": "sandbox"}


def post(nginx: Nginx, url: str, body: bytes = CONTENT, **headers: str) -> Answer:
    return nginx.ask("POST", url, {name.replace("_", "-"): value for name, value in headers.items()}, body)


def by_front(answer: Answer) -> bool:
    return "x-answered-by" in answer.headers


@pytest.fixture
def stored(nginx: PostNginx, url: str) -> str:
    assert post(nginx, url).status == 201
    return url


@pytest.fixture
def laid_down(nginx: PostNginx, stored: str) -> str:
    assert by_front(nginx.get(stored))
    return stored


def test_nginx_takes_it_without_a_warning(tmp_path: Path) -> None:
    tried = PostNginx(tmp_path, 1).test()
    assert tried.returncode == 0, tried.stderr
    assert "[warn]" not in tried.stderr


def test_other_prefixes_can_be_named_as_it_says(tmp_path: Path, front: Post, url: str) -> None:
    changes = {r"location \^~ /images/ \{": 'location ~ "^/(?:images|avatars)/" {'}
    assert changes[r"location \^~ /images/ \{"] in CONF.read_text()
    nginx = PostNginx(tmp_path, front.port, changes)
    with nginx.running():
        for here in (url, url.replace("images", "avatars")):
            assert post(nginx, here).status == 201
            assert [by_front(nginx.get(here)) for _ in range(2)] == [True, False]
        assert nginx.get(url.replace("images", "others")).status == 404


class TestWhoAnswers:
    def test_the_second_read_never_reaches_the_front(self, nginx: PostNginx, front: Post, stored: str) -> None:
        before = front.asked()
        answers = [nginx.get(f"{stored}{query}") for query in ("", "", "?version=12", "?path=x", "?", "")]
        assert [(answer.status, answer.body) for answer in answers] == [(200, CONTENT)] * 6
        assert front.asked() == before + 1
        assert [by_front(answer) for answer in answers] == [True, False, False, False, False, False]
        assert nginx.laid_down()[stored] == CONTENT

    def test_the_first_read_may_have_a_query(self, nginx: PostNginx, stored: str) -> None:
        assert by_front(nginx.get(f"{stored}?version=12"))
        assert not by_front(nginx.get(stored))

    def test_an_unknown_file_is_404_and_there_as_soon_as_it_comes(self, nginx: PostNginx, url: str) -> None:
        for _ in range(2):
            answer = nginx.get(url)
            assert (answer.status, json.loads(answer.body)["type"]) == (404, "urn:sfss:not-found")
        assert post(nginx, url).status == 201
        assert nginx.get(url).body == CONTENT

    def test_without_the_front_what_is_laid_down_is_answered_and_all_else_is_502(self, tmp_path: Path) -> None:
        nginx = PostNginx(tmp_path, free_port())
        file = nginx.stored / "images" / "a.jpg"
        file.parent.mkdir()
        file.write_bytes(CONTENT)
        with nginx.running():
            assert nginx.get("/images/a.jpg").body == CONTENT
            for method in ("GET", "POST"):
                answer = nginx.ask(method, "/images/b.jpg", None, b"x" if method == "POST" else None)
                assert (answer.status, answer.headers["content-type"]) == (502, "application/problem+json")
                assert answer.headers["retry-after"] == "2"

    def test_many_readers_of_a_new_file_all_get_it_whole(self, nginx: PostNginx, url: str) -> None:
        content = secrets.token_bytes(3 * MIB)
        assert post(nginx, url, content).status == 201
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(nginx.get, [url] * 32))
        assert all((answer.status, answer.body) == (200, content) for answer in answers)
        assert nginx.laid_down()[url] == content

    def test_it_goes_on_through_a_reload(self, nginx: PostNginx, laid_down: str, front: Post) -> None:
        pid = int((nginx.directory / "nginx.pid").read_text())
        workers = Path(f"/proc/{pid}/task/{pid}/children")
        before, asked = workers.read_text().split(), front.asked()
        os.kill(pid, signal.SIGHUP)
        wait_for(lambda: not set(before) & set(workers.read_text().split()), what="other workers")
        assert nginx.get(laid_down).body == CONTENT
        assert front.asked() == asked


class TestWrites:
    def test_a_second_post_is_405_by_the_front_and_then_by_nginx(
        self, nginx: PostNginx, front: Post, stored: str
    ) -> None:
        first = post(nginx, stored, b"other")
        nginx.get(stored)
        before = front.asked()
        second = post(nginx, stored, b"other" * 100_000)
        assert front.asked() == before
        for answer in (first, second):
            assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")
            told = json.loads(answer.body)
            assert (told["type"], told["status"]) == ("urn:sfss:write-once", 405)
        assert nginx.get(stored).body == CONTENT

    @pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS"])
    def test_nothing_else_is_possible_before_or_after(self, nginx: PostNginx, stored: str, method: str) -> None:
        for _ in range(2):
            answer = nginx.ask(method, stored, None, b"x" if method != "DELETE" else None)
            assert (answer.status, "allow" in answer.headers) == (405, True)
            assert nginx.get(stored).body == CONTENT
        assert nginx.ask(method, f"{stored}.new", None, b"x").status == 405
        assert f"{stored}.new" not in nginx.laid_down()

    def test_a_post_lays_nothing_down(self, nginx: PostNginx, url: str) -> None:
        for body in (b"", CONTENT, bytes(2 * MIB)):
            assert post(nginx, f"{url}{len(body)}", body).status == 201
            assert post(nginx, f"{url}{len(body)}", body).status == 405
        assert not [each for each in nginx.laid_down() if each.startswith(url)]

    def test_of_racing_creators_one_wins(self, nginx: PostNginx, url: str) -> None:
        bodies = [secrets.token_bytes(1000) for _ in range(12)]
        with ThreadPoolExecutor(12) as pool:
            answers = list(pool.map(lambda body: post(nginx, url, body), bodies))
        statuses = [answer.status for answer in answers]
        assert sorted(statuses) == [201] + [405] * 11
        for _ in range(2):
            assert nginx.get(url).body == bodies[statuses.index(201)]

    def test_a_large_body_goes_through_and_one_that_is_too_large_is_413(self, nginx: PostNginx, url: str) -> None:
        content = secrets.token_bytes(MIB) * 70
        assert post(nginx, url, content).status == 201
        for _ in range(2):
            assert nginx.get(url).body == content
        answer = nginx.ask("POST", f"{url}2", {"Content-Length": str(100 * MIB + 1), "Expect": "100-continue"})
        assert (answer.status, json.loads(answer.body)["limit"]) == (413, 100 * MIB)
        assert nginx.get(f"{url}2").status == 404

    def test_a_body_of_unknown_length_is_taken_too(self, nginx: PostNginx, url: str) -> None:
        with nginx.connect() as sock:
            sock.sendall(f"POST {url} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
            for chunk in (b"never ", b"changed"):
                sock.sendall(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
            sock.sendall(b"0\r\n\r\n")
            assert sock.recv(100).startswith(b"HTTP/1.1 201 ")
        assert nginx.get(url).body == CONTENT

    def test_a_body_that_breaks_off_creates_nothing(self, nginx: PostNginx, url: str) -> None:
        for head in ("Content-Length: 1000", "Transfer-Encoding: chunked"):
            with nginx.connect() as sock:
                sock.sendall(f"POST {url} HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n3e8\r\nbroken".encode())
        time.sleep(0.3)
        assert nginx.get(url).status == 404
        assert post(nginx, url).status == 201

    def test_a_form_is_taken_too(self, nginx: PostNginx, url: str, tmp_path: Path) -> None:
        (tmp_path / "a.jpg").write_bytes(CONTENT)
        done = subprocess.run(
            ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-F", f"file=@{tmp_path}/a.jpg",
             f"http://{HOST}:{nginx.port}{url}"], capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        assert (done.stdout, nginx.get(url).body) == ("201", CONTENT)


class TestWhatIsLaidDown:
    def test_head_range_and_conditions_mean_the_same_before_and_after_and_lay_nothing_down(
        self, nginx: PostNginx, stored: str
    ) -> None:
        modified = nginx.ask("HEAD", stored).headers["last-modified"]
        for is_laid_down in (False, True):
            if is_laid_down:
                nginx.get(stored)
            head = nginx.ask("HEAD", stored)
            assert (head.status, head.headers["content-length"], head.body) == (200, "13", b"")
            assert head.headers["last-modified"] == modified
            assert ("etag" in head.headers) == is_laid_down  # nginx's own
            part = nginx.get(stored, Range="bytes=0-4")
            assert (part.status, part.body, part.headers["content-range"]) == (206, CONTENT[:5], "bytes 0-4/13")
            assert nginx.get(stored, Range="bytes=-3").body == CONTENT[-3:]
            assert nginx.get(stored, Range="bytes=99-").status == 416
            assert nginx.get(stored, If_Modified_Since=modified).status == 304
            assert nginx.get(stored, If_Unmodified_Since="Thu, 01 Jan 1970 00:00:00 GMT").status == 412
            assert nginx.get(stored, If_None_Match="*").status in (200, 304)  # nginx wants an ETag for it
            assert nginx.get(stored, If_Match='"x"').status == 412
            assert (stored in nginx.laid_down()) == is_laid_down
        answer = nginx.get(stored, Range="bytes=0-4", If_Range='"another"')
        assert (answer.status, answer.body) == (200, CONTENT)

    def test_an_empty_file_is_one(self, nginx: PostNginx, url: str) -> None:
        assert post(nginx, url, b"").status == 201
        assert nginx.ask("HEAD", url).status == 200
        for front_answers in (True, False):
            answer = nginx.get(url)
            assert (answer.status, answer.body, by_front(answer)) == (200, b"", front_answers)

    @pytest.mark.parametrize(("name", "type"), [
        ("a.html", "text/html"), ("a.svg", "image/svg+xml"), ("a.js", "application/javascript"),
        ("a", "application/octet-stream"), ("a.jpg", "image/jpeg"), ("a.xhtml", "application/xhtml+xml"),
        ("index.html", "text/html"),
    ])  # fmt: skip
    def test_nobodys_upload_runs_as_a_page_whoever_answers(
        self, nginx: PostNginx, url: str, name: str, type: str
    ) -> None:
        url = f"{url}.d/{name}"
        assert post(nginx, url, b"<script>alert(1)</script>", Content_Type="text/html").status == 201
        for front_answers in (True, False):
            part, head, whole = nginx.get(url, Range="bytes=0-1"), nginx.ask("HEAD", url), nginx.get(url)
            for answer in (part, head, whole):
                assert HARMLESS.items() <= answer.headers.items()
                assert answer.headers["content-type"] == ("text/html" if front_answers else type)
        assert nginx.get(f"{url.rpartition('/')[0]}/").status == 400  # no index

    def test_compression_is_nobody_s(self, nginx: PostNginx, url: str) -> None:
        content = b"a" * 100_000
        post(nginx, f"{url}.txt", content)
        for _ in range(2):
            answer = nginx.get(f"{url}.txt", Accept_Encoding="gzip")
            assert (answer.body, "content-encoding" in answer.headers) == (content, False)

    def test_what_is_removed_from_the_store_is_fetched_again(self, nginx: PostNginx, laid_down: str) -> None:
        (nginx.stored / laid_down[1:]).unlink()
        assert by_front(nginx.get(laid_down))
        assert not by_front(nginx.get(laid_down))

    def test_a_file_that_cant_be_laid_down_comes_all_the_same(self, tmp_path: Path, front: Post, url: str) -> None:
        nginx = PostNginx(tmp_path, front.port)
        (nginx.stored / "images").write_text("no directory")
        with nginx.running():
            post(nginx, url)
            for _ in range(2):
                answer = nginx.get(url)
                assert (answer.status, answer.body, by_front(answer)) == (200, CONTENT, True)
        assert nginx.laid_down() == {"/images": b"no directory"}

    @pytest.mark.parametrize("sent", [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n" + bytes(1000),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n" + bytes(1000) + b"\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n",
        b"HTTP/1.1 206 Partial Content\r\nContent-Length: 4\r\nContent-Range: bytes 0-3/9\r\n\r\nabcd",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nabcd",
        b"HTTP/1.1 504 Gateway Timeout\r\nContent-Length: 4\r\n\r\nabcd",
        b"HTTP/1.1 201 Created\r\nContent-Length: 4\r\n\r\nabcd",
    ])  # fmt: skip
    def test_what_is_no_whole_file_is_not_laid_down(self, tmp_path: Path, sent: bytes) -> None:
        port = free_port()
        nginx = PostNginx(tmp_path, port)
        with socket.create_server((HOST, port)) as listening, nginx.running():
            sending = threading.Thread(target=_answer_once, args=(listening, sent))
            sending.start()
            try:
                answer = nginx.get("/images/a")
                assert answer.status != 200 or answer.body == b""
            except http.client.IncompleteRead:
                pass
            sending.join()
            time.sleep(0.1)
            assert nginx.laid_down() == {}

    def test_who_hangs_up_in_the_midst_leaves_nothing_that_is_not_whole(self, nginx: PostNginx, url: str) -> None:
        content = secrets.token_bytes(MIB) * 20
        assert post(nginx, url, content).status == 201
        for _ in range(3):
            with nginx.connect() as sock:
                sock.sendall(f"GET {url} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                sock.recv(1000)
        assert nginx.get(url).body == content
        wait_for(lambda: not [file for file in (nginx.directory / "post-temp").rglob("*") if file.is_file()])
        assert nginx.laid_down()[url] == content


def _answer_once(listening: socket.socket, sent: bytes) -> None:
    """A front that is killed while it answers, or that answers something else."""
    sock, _ = listening.accept()
    with sock:
        sock.recv(4096)
        sock.sendall(sent)


@pytest.fixture(scope="module")
def named(nginx: PostNginx) -> dict[str, bytes]:
    """Files of nasty names below /images/names/."""
    contents = {name: f"I am {name!r}".encode() for name in NASTY}
    for name, content in contents.items():
        assert post(nginx, f"/images/names/{quote(name, safe='/')}", content).status == 201, name
    return contents


class TestNames:
    def test_each_is_read_by_its_own_url_however_it_is_spelled(self, nginx: PostNginx, named: dict[str, bytes]) -> None:
        for _ in range(2):
            for name, content in named.items():
                for spelled in spellings(name) | {quote(name, safe="/&+$,;:=@!'()*")}:
                    answer = nginx.get(f"/images/names/{spelled}")
                    assert (answer.status, answer.body) == (200, content), spelled
        root = nginx.stored / "images" / "names"
        found = {str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*") if file.is_file()}
        assert found.items() <= named.items()
        assert len(found) == sum(all(len(part.encode()) < 256 for part in name.split("/")) for name in named)

    def test_a_name_that_is_a_files_and_a_folders_is_read_as_both(self, nginx: PostNginx, url: str) -> None:
        for first, second in (("d1", "d1/e"), ("d2/e", "d2")):
            for name in (first, second):
                assert post(nginx, f"{url}/{name}", name.encode()).status == 201
            for _ in range(3):
                for name in (first, second):
                    assert nginx.get(f"{url}/{name}").body == name.encode()
                    assert post(nginx, f"{url}/{name}", b"x").status == 405

    def test_upper_and_lower_case_are_two(self, nginx: PostNginx, url: str) -> None:
        for name in ("A.jpg", "a.jpg"):
            assert post(nginx, f"{url}/{name}", name.encode()).status == 201
        for _ in range(2):
            for name in ("A.jpg", "a.jpg"):
                assert nginx.get(f"{url}/{name}").body == name.encode()

    @pytest.mark.parametrize("bad", ["/", "//x", "/x//y", "/x/", "/%2e%2e/%2e%2e/etc/passwd", "/x%00", "/x%0a", "/%ff"])
    def test_no_other_spelling_finds_what_is_laid_down(self, nginx: PostNginx, laid_down: str, bad: str) -> None:
        folder = laid_down.rpartition("/")[0]
        for target in (f"{folder}{bad}", f"{folder}//file.jpg", f"{laid_down}/", f"{folder}/x/%2e%2e//file.jpg",
                       f"//images/{laid_down[8:]}", f"{laid_down}%00", laid_down.upper()):  # fmt: skip
            answer = nginx.get(target)
            assert answer.status in (400, 404), (target, answer)

    def test_what_cant_be_a_path_is_refused_and_nothing_is_laid_down(self, nginx: PostNginx) -> None:
        (nginx.directory / "secret").write_text("secret")
        (nginx.stored / "secret").write_text("secret")
        before = nginx.laid_down()
        for text in REFUSED:
            for method in ("GET", "POST"):
                target = f"/images/{text}" if not text.startswith("/") else f"/images{text}/"
                if "&" in text and ".." not in text:
                    continue
                answer = nginx.ask(method, target, None, b"x" if method == "POST" else None)
                assert answer.status in (400, 404, 405), (method, text, answer)
                assert b"secret" not in answer.body or b"urn:sfss" in answer.body
        assert nginx.laid_down() == before

    def test_pages_of_sfss_are_not_let_out(self, nginx: PostNginx) -> None:
        for target in ("/status", "/files", "/file?path=images/a", "/", "/secret", "/post-front", "/images/../status",
                       "/images/%2e%2e/status", "/images/..%2Fstatus", "/images%2F..%2Fstatus", "/@fetch"):  # fmt: skip
            for method in ("GET", "POST"):
                answer = nginx.ask(method, target, None, b"x" if method == "POST" else None)
                assert (answer.status, answer.headers["content-type"]) == (404, "application/problem+json"), target


class TestWhoIsLetIn:
    def test_what_a_signature_opens_is_not_laid_down_for_all(self, tmp_path: Path) -> None:
        settings = {"SFSS_ACCESS_ANONYMOUS": "write", "SFSS_ACCESS_SIGNING_SECRETS": SECRET}
        (directory := tmp_path / "front").mkdir()
        front = Post(directory, "post", settings=settings)
        with front, PostNginx(tmp_path / "nginx", front.port).running() as nginx:
            assert post(nginx, "/images/a").status == 201
            signed = signing.sign(SECRET, "GET", "images/a", int(time.time() + 60))
            for name in ("signature", "%73ignature", "s%69gnature"):
                answer = nginx.get(f"/images/a?expires={signed.expires}&{name}={signed.signature}")
                assert (answer.status, answer.body) == (200, CONTENT)
                assert nginx.get("/images/a").status == 401
