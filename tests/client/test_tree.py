"""Folders up and down: what goes where, what is named and left out, and that nothing leaves the folder."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import urllib.parse
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sfss.client import api, tree
from sfss.client.failures import Failure
from sfss.client.resume import PART
from tests.client.support import Network, User, ended, noise, passed, store, stored
from tests.servers import Service, wait_for

FILES = {
    "a.txt": b"a",
    "empty": b"",
    ".hidden/.too": b"h",
    "фото/кот 1.jpg": noise(70_000),
    "deep/" * 20 + "er": b"d",
    "a+b 100%.txt": b"p",
    "large": noise(6_000_000),
    **{f"many/{number}": b"%d" % number for number in range(100)},
}


@pytest.fixture
def prefix() -> str:
    """A folder that no other test uses."""
    return f"{secrets.token_hex(4)}/folder"


@pytest.fixture
def folder(user: User) -> Path:
    """A local folder with files."""
    for name, content in FILES.items():
        (user.directory / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (user.directory / "tree" / name).write_bytes(content)
    (user.directory / "tree" / "nothing in it").mkdir()
    return user.directory / "tree"


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_goes_up_and_comes_down_the_same(user: User, folder: Path, prefix: str) -> None:
    total = sum(map(len, FILES.values()))
    assert user.succeed("put", "-r", "tree", prefix, "--jobs", "8").startswith(
        f"sent {len(FILES)} files, {total:,} bytes in "
    )
    assert user.succeed("get", "-r", prefix, "new/copy", "--jobs", "8").startswith(
        f"fetched {len(FILES)} files, {total:,} bytes in "
    )
    assert content(user.directory / "new/copy") == FILES
    listed = user.succeed("ls", "-r", f"{prefix}/").splitlines()
    assert listed == sorted((f"{prefix}/{name}" for name in FILES), key=str.encode)
    assert user.succeed("rm", "-r", prefix, "--jobs", "8") == f"removed {len(FILES)} files\n"
    assert user.succeed("ls", "-r", f"{prefix}/") == ""
    for arguments in (["get", "-r", prefix, "none"], ["rm", "-r", prefix]):
        done = user.run(*arguments)
        assert (done.returncode, done.stderr.decode()) == (3, f"sfss: {prefix}/: there is no file in it\n")


def test_a_prefix_is_a_folder_and_takes_no_other_with_it(user: User, large_service: Service, prefix: str) -> None:
    for name in (f"{prefix}/in", f"{prefix}-other", f"{prefix}"):
        store(large_service, name, b"x")
    user.succeed("get", "-r", prefix, "copy")
    assert user.names() == ["copy/in"]
    user.succeed("rm", "-r", prefix)
    assert stored(large_service, f"{prefix}-other") == stored(large_service, prefix) == b"x"


def test_several_folders_and_files_keep_their_names(user: User, folder: Path, prefix: str) -> None:
    (user.directory / "other").mkdir()
    (user.directory / "other" / "x").write_text("x")
    user.succeed("put", "-r", "tree", "other", "tree/a.txt", prefix)
    listed = set(user.succeed("ls", "-r", f"{prefix}/").splitlines())
    assert {f"{prefix}/tree/a.txt", f"{prefix}/other/x", f"{prefix}/a.txt"} <= listed
    assert len(listed) == len(FILES) + 2


def test_what_is_there_already_is_not_moved_again(user: User, folder: Path, between: Network, prefix: str) -> None:
    user.succeed("put", "-r", "tree", prefix)
    assert "; 1 there already" in user.succeed("put", "-r", "tree", prefix)
    user.succeed("get", "-r", prefix, "copy")
    (user.directory / "copy" / "large").write_bytes(bytes(6_000_000))
    (user.directory / "copy" / "a.txt").unlink()
    said = user.succeed("get", "-r", prefix, "copy")
    assert said.startswith("fetched 2 files")
    assert said.endswith(f"; {len(FILES) - 2} there already\n")
    assert content(user.directory / "copy") == FILES


def test_what_cannot_be_sent_is_named_and_the_rest_goes_on(user: User, folder: Path, prefix: str) -> None:
    (folder / "link").symlink_to("a.txt")
    (folder / "loop").symlink_to(".")
    os.mkfifo(folder / "pipe")
    (folder / f".x.{'0' * 64}{PART}").write_text("half")
    done = user.run("put", "-r", "tree", prefix)
    assert done.returncode == 0
    assert b"; 4 left out" in done.stdout
    for name in (b"tree/link: a link", b"tree/loop: a link", b"tree/pipe: no file", b"a download that has not ended"):
        assert name in done.stderr
    (folder / "back\\slash").write_text("x")
    (folder / "new\nline").write_text("x")
    (folder / os.fsdecode(b"no\xff")).write_text("x")
    (folder / "gone").symlink_to("nowhere")
    done = user.run("put", "-r", "--follow-links", "tree", prefix)
    assert done.returncode == 1
    assert b"; 4 failed" in done.stdout
    for name in (b"tree/back\\slash: ", b"tree/new line: ", b"no\\udcff", b"tree/gone: No such file"):
        assert name in done.stderr
    assert b"tree/loop: a link to a folder that it is in" in done.stderr
    assert done.stderr.count(b"\n") == 4 + 3
    listed = set(user.succeed("ls", "-r", f"{prefix}/").splitlines())
    assert listed == {f"{prefix}/{name}" for name in [*FILES, "link"]}


def test_what_cannot_be_read_is_named_and_the_rest_goes_on(user: User, folder: Path, prefix: str) -> None:
    (folder / "a.txt").chmod(0)
    (folder / "many").chmod(0)
    # Root may read everything, unless it gives that up.
    humble = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    done = user.run("put", "-r", "tree", prefix, within=humble)
    (folder / "many").chmod(0o700)
    assert done.returncode == 1
    assert b"; 2 failed" in done.stdout


def test_a_file_where_a_folder_has_to_be_is_named_and_the_rest_goes_on(
    user: User, large_service: Service, prefix: str
) -> None:
    for name in ("a", "a/b", "a/c/d", "e"):
        store(large_service, f"{prefix}/{name}", name.encode())
    done = user.run("get", "-r", prefix, "copy", "--jobs", "1")
    assert done.returncode == 1
    assert content(user.directory / "copy") == {"a": b"a", "e": b"e"}
    assert done.stderr.count(b"is a file: no folder can be there, too") == 2


def test_links_do_not_lead_out_of_the_folder(user: User, large_service: Service, prefix: str, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("mine")
    copy = user.directory / "copy"
    (copy / "in").mkdir(parents=True)
    (copy / "link").symlink_to(outside)
    (copy / "file").symlink_to(outside / "precious")
    (copy / "new").symlink_to(outside / "new")
    (copy / "inner").symlink_to("in")
    for name in ("link/precious", "link/deep/x", "file", "new", "inner/x"):
        store(large_service, f"{prefix}/{name}", b"theirs")
    done = user.run("get", "-r", prefix, "copy")
    assert done.returncode == 1
    assert done.stderr.count(b"is a link that leads out of") == 4
    assert content(outside) == {"precious": b"mine"}
    assert (copy / "in" / "x").read_bytes() == b"theirs"


WICKED = [
    "../x",
    "/etc/x",
    "a/../../x",
    "..",
    "a//b",
    "a/./b",
    "",
    "a/",
    "back\\slash",
    "nul\0",
    f"a{PART}",
    f"a{PART}/b",
]


@pytest.mark.parametrize("name", [f"p/{name}" for name in WICKED] + ["elsewhere/x", "/etc/passwd"])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(Failure):
        tree.make_way(tmp_path, "p/", name)
    assert list(tmp_path.iterdir()) == []


async def test_a_wicked_service_puts_nothing_outside(user: User) -> None:
    names = ["p/good", "p/../evil", "p//etc/evil", "p/a/../../evil", "/evil", "p/..", "p/a\\..\\evil"]
    files = [{"path": name, "size": 4, "etag": "x", "type": "", "modified": ""} for name in names]
    page = json.dumps({"prefix": "p/", "files": files, "prefixes": [], "next": None}).encode()
    etag = "88d4266fd4e6338d13b845fcf289579d209c897823b9217da3e161936f031589"  # of b"abcd"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        body = page if request.startswith(b"GET /files?") else b"abcd"
        writer.write(
            f'HTTP/1.1 200 OK\r\nETag: "{etag}"\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n'.encode()
            + body
        )
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        user.port = server.sockets[0].getsockname()[1]
        done = await asyncio.to_thread(user.run, "get", "-r", "p", "copy")
    assert done.returncode == 1
    assert user.names() == ["copy/good"]
    assert done.stderr.count(b"can't be the name of a file here") == len(names) - 1
    assert sorted(path.name for path in user.directory.parent.iterdir()) == ["here"]


def test_ctrl_c_leaves_whole_files_only_and_the_same_command_goes_on(
    user: User, folder: Path, between: Network, prefix: str
) -> None:
    user.succeed("put", "-r", "tree", prefix)
    between.pause = 0.01
    before = between.down
    with user.running("get", "-r", prefix, "copy", "--jobs", "3") as child:
        wait_for(lambda: between.down > before + 1_000_000, what="some of it")
        child.send_signal(signal.SIGINT)
        status, words = ended(child)
    assert status == 130
    assert words.splitlines()[-1] == "sfss: interrupted"
    for name, data in content(user.directory / "copy").items():
        assert FILES[name] == data
    between.pause = 0
    user.succeed("get", "-r", prefix, "copy")
    assert content(user.directory / "copy") == FILES


def test_ctrl_c_leaves_no_uploads_of_a_folder(user: User, between: Network, prefix: str) -> None:
    (user.directory / "tree").mkdir()
    for name in "abc":
        (user.directory / "tree" / name).write_bytes(FILES["large"] * 3)
    between.pause = 0.01
    with user.running("put", "-r", "tree", prefix, "--jobs", "3") as child:
        wait_for(lambda: len(user.notes()) == 3, what="three uploads")
        passed(between, 3_000_000)
        between.pause = 0
        child.send_signal(signal.SIGINT)
        assert ended(child)[0] == 130
    assert user.notes() == []
    assert user.succeed("ls", "-r", f"{prefix}/") == ""


def test_a_folder_is_sent_whole_after_a_kill(
    user: User, folder: Path, between: Network, large_service: Service, prefix: str
) -> None:
    between.pause = 0.01
    with user.running("put", "-r", "tree", prefix, "--jobs", "3") as child:
        passed(between, 3_000_000)
        child.kill()
    between.pause = 0
    for name, data in FILES.items():
        assert stored(large_service, f"{prefix}/{name}") in (None, data)
    user.succeed("put", "-r", "tree", prefix)
    for name, data in FILES.items():
        assert stored(large_service, f"{prefix}/{name}") == data
    assert user.notes() == []


def test_when_the_service_goes_away_the_rest_is_not_tried(
    user: User, folder: Path, between: Network, prefix: str
) -> None:
    between.pause = 0.01
    with user.running("put", "-r", "tree", prefix, "--retries", "1", "--jobs", "2") as child:
        passed(between, 1_000_000)
        between.close()
        status, words = ended(child)
    assert status == 4
    assert len(words.splitlines()) <= 3
    assert "stopped; the same command goes on from here" in words


def test_breaks_are_gone_over_in_folders_too(user: User, folder: Path, between: Network, prefix: str) -> None:
    between.cut_after(100, 2000, 500_000, 5, 10_000)
    user.succeed("put", "-r", "tree", prefix, "--jobs", "3")
    between.cut_after(100, 2000, 500_000, 5, 10_000)
    user.succeed("get", "-r", prefix, "copy", "--jobs", "3")
    assert content(user.directory / "copy") == FILES


async def test_a_folder_of_many_pages_is_seen_whole(
    large_service: Service, folder: Path, user: User, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    user.succeed("put", "-r", "tree", prefix)
    monkeypatch.setattr(api, "PAGE", 7)
    async with api.Client(large_service.url) as client:
        pages = [page async for page in tree.files_stored(client, f"{prefix}/")]
    assert [len(page) for page in pages] == [7] * 15 + [len(FILES) - 105]
    assert {job.path for page in pages for job in page} == {f"{prefix}/{name}" for name in FILES}


async def test_a_list_that_does_not_go_on_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextlib.asynccontextmanager
    async def request(*_: object) -> AsyncIterator[object]:
        class Page:
            async def read(self) -> bytes:
                return b'{"files": [], "next": "a"}'

        yield Page()

    client = api.Client("http://127.0.0.1:1")
    monkeypatch.setattr(client, "request", request)
    assert await client.list("") == ([], "a")
    with pytest.raises(Failure, match="a list that doesn't go on"):
        await client.list("", "a")


def test_what_is_asked_for_is_asked_for_by_its_very_name(user: User, large_service: Service, prefix: str) -> None:
    awkward = f"{prefix}/a+b %20&c=d#e?f;g 100%.txt"
    store(large_service, awkward, b"x")
    user.succeed("get", awkward, "copy")
    assert (user.directory / "copy").read_bytes() == b"x"
    assert f"path: {awkward}" in user.succeed("stat", awkward)
    user.succeed("rm", awkward)
    assert stored(large_service, awkward) is None
    assert urllib.parse.quote(awkward) != awkward
