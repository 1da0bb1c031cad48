"""The configuration as it is shipped: nginx takes it, and its front door is TLS."""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import subprocess
from pathlib import Path

import pytest

from tests.nginx.conftest import MIB
from tests.nginx.server import NAME, Nginx
from tests.servers import HOST


def test_nginx_takes_it_without_a_warning(tmp_path: Path) -> None:
    tried = Nginx(tmp_path, [1]).test()
    assert tried.returncode == 0, tried.stderr
    assert "[warn]" not in tried.stderr
    assert "[emerg]" not in tried.stderr


def test_plain_http_is_sent_to_tls_with_its_method(nginx: Nginx) -> None:
    for method in ("GET", "PUT"):
        connection = http.client.HTTPConnection(HOST, nginx.redirect_port, timeout=20)
        connection.request(method, "/file?path=a%20b&x", headers={"Host": NAME})
        answer = connection.getresponse()
        assert (answer.status, answer.headers["Location"]) == (308, f"https://{NAME}/file?path=a%20b&x")
        connection.close()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_modern_tls_is_spoken(nginx: Nginx, version: ssl.TLSVersion) -> None:
    context = nginx.tls_context()
    context.minimum_version = context.maximum_version = version
    with (
        socket.create_connection((HOST, nginx.port), 20) as plain,
        context.wrap_socket(plain, server_hostname=NAME) as sock,
    ):
        assert sock.version() == version.name.replace("_", ".")
        cipher = sock.cipher()
        assert cipher is not None
        assert "GCM" in cipher[0] or "CHACHA20" in cipher[0]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_older_tls_is_not(nginx: Nginx) -> None:
    context = nginx.tls_context()
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection((HOST, nginx.port), 20) as plain, pytest.raises(ssl.SSLError):
        context.wrap_socket(plain, server_hostname=NAME)


def test_a_session_is_taken_up_again(nginx: Nginx) -> None:
    context = nginx.tls_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    session, reused = None, []
    for _ in range(2):
        with socket.create_connection((HOST, nginx.port), 20) as plain:
            sock = context.wrap_socket(plain, server_hostname=NAME, session=session)
            session = sock.session
            reused.append(sock.session_reused)
            sock.close()
    assert reused == [False, True]


def test_http_2_is_offered(nginx: Nginx) -> None:
    context = nginx.tls_context()
    context.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection((HOST, nginx.port), 20) as plain,
        context.wrap_socket(plain, server_hostname=NAME) as sock,
    ):
        assert sock.selected_alpn_protocol() == "h2"


def test_http_2_takes_and_gives_files_of_any_length_told_or_not(nginx: Nginx, path: str, tmp_path: Path) -> None:
    content = tmp_path / "content"
    content.write_bytes(os.urandom(20 * MIB))
    url = f"https://{NAME}:{nginx.port}/file?path={path}"
    curl = ["curl", "--silent", "--fail", "--http2", "--cacert", str(nginx.certificate),
            "--resolve", f"{NAME}:{nginx.port}:{HOST}"]  # fmt: skip
    for source in (str(content), "-"):
        nginx.ask("DELETE", f"/file?path={path}")
        with content.open("rb") as body:
            subprocess.run([*curl, "--upload-file", source, url], stdin=body, check=True, timeout=60)
        told = subprocess.run([*curl, "--write-out", "%{stderr}%{http_version}", url], capture_output=True, timeout=60)
        assert (told.stdout == content.read_bytes(), told.stderr) == (True, b"2")


def test_plain_http_at_the_tls_port_gets_nothing(nginx: Nginx) -> None:
    connection = http.client.HTTPConnection(HOST, nginx.port, timeout=20)
    connection.request("GET", "/file?path=a")
    assert connection.getresponse().status == 400
    connection.close()
