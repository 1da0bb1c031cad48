"""``sfss ls`` and ``sfss du``, of a running service."""

from __future__ import annotations

import secrets
import subprocess
import sys
import urllib.parse
import urllib.request

import pytest

from tests.servers import Service, free_port
from tests.test_cli import run, status_of

NAMES = {"a b.txt": 3, "pics/1.jpg": 1000, "pics/2.jpg": 20, "pics/old/3.jpg": 1, "фото/кот.jpg": 7, "z": 0}


@pytest.fixture(scope="module")
def folder(service: Service) -> str:
    """The service is shared: a place of one's own."""
    folder = f"{secrets.token_hex(4)}/"
    for name, size in NAMES.items():
        query = urllib.parse.urlencode({"path": folder + name})
        request = urllib.request.Request(f"{service.url}/file?{query}", data=bytes(size), method="PUT")
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status == 200
    return folder


def shown(service: Service, *arguments: str) -> list[str]:
    done = run(*arguments, "--port", str(service.port))
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_ls_shows_files_and_folders_in_order(service: Service, folder: str) -> None:
    assert shown(service, "ls", folder) == [folder + name for name in ("a b.txt", "pics/", "z", "фото/")]
    assert shown(service, "ls", folder + "pics") == [folder + "pics/"]
    assert shown(service, "ls", folder + "pics/") == [folder + f"pics/{name}" for name in ("1.jpg", "2.jpg", "old/")]
    assert shown(service, "ls", folder + "nothing") == []


def test_ls_r_shows_all_files_and_no_folders(service: Service, folder: str) -> None:
    assert shown(service, "ls", "-r", folder) == [folder + name for name in sorted(NAMES)]


def test_ls_l_shows_sizes_and_times(service: Service, folder: str) -> None:
    lines = [line.split(maxsplit=2) for line in shown(service, "ls", "-lr", folder)]
    assert [(int(size), name) for size, _, name in lines] == [(NAMES[n], folder + n) for n in sorted(NAMES)]
    assert all(time.startswith("20") and "T" in time for _, time, _ in lines)
    assert [line.split() for line in shown(service, "ls", "-l", folder + "p")] == [["-", folder + "pics/"]]


def test_du_counts_each_folder_and_all(service: Service, folder: str) -> None:
    assert [line.split() for line in shown(service, "du", folder)] == [
        ["1021", "3", folder + "pics/"],
        ["7", "1", folder + "фото/"],
        ["1031", "6", folder],
    ]
    assert [line.split() for line in shown(service, "du", folder + "nothing")] == [["0", "0", folder + "nothing"]]


def test_a_reader_that_has_seen_enough_is_no_error(service: Service, folder: str) -> None:
    command = f"{sys.executable} -m sfss ls -r {folder} --port {service.port} | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=30)
    assert (done.stdout, done.stderr) == (f"{folder}a b.txt\n", "")


def test_what_cannot_be_listed_is_said_in_one_line() -> None:
    done = run("ls", "--port", str(free_port()))
    assert (done.returncode, done.stdout) == (1, "")
    assert "no service answers" in done.stderr


def test_a_list_that_breaks_off_is_no_success() -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    done = status_of(head + b'10\r\n{"path": "a"}   \n', "ls")
    assert done.returncode == 1
    assert "broke off" in done.stderr
