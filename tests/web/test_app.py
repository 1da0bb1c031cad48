"""The application as a server: what happens to clients that go away, to nodes that do, at the stop, over TLS."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from yarl import URL

from sfss import config
from sfss.cluster.ring import Ring
from sfss.errors import ConfigError
from sfss.paths import key_of
from sfss.web.app import serve
from sfss.web.tls import tls_context
from tests.conftest import Nodes, StartFront
from tests.servers import HOST, Service, free_port, sfss_node, stop_in_its_tracks, wait_for


def url(path: str) -> URL:
    return URL("/file").with_query(path=path)


def path_on(nodes: Nodes, node: str) -> str:
    """A new path whose owner is this node."""
    ring = Ring(nodes)
    return next(path for path in (secrets.token_hex(8) for _ in range(10_000)) if ring.owners(key_of(path)) == (node,))


async def raw(port: int, *pieces: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection(HOST, port)
    for piece in pieces:
        writer.write(piece)
    await writer.drain()
    return reader, writer


class TestClientsThatGoAway:
    async def test_in_the_middle_of_an_upload_nothing_is_stored(
        self, start_front: StartFront, our_nodes: Nodes
    ) -> None:
        front = await start_front(our_nodes)
        await front.put(url("kept"), data=b"kept")
        for head in (b"Content-Length: 100000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n186A0\r\n"):
            for sent in (0, 1, 50_000):
                _, writer = await raw(
                    front.port or 0, b"PUT /file?path=kept HTTP/1.1\r\nHost: x\r\n", head, bytes(sent)
                )
                writer.transport.abort()
        await asyncio.sleep(0.1)
        assert await (await front.get(url("kept"))).read() == b"kept"

    @pytest.mark.parametrize("kind", ["our_nodes", "memcached_nodes"])
    async def test_at_any_moment_of_a_put_the_old_file_or_the_new_one_is_there_whole(
        self, start_front: StartFront, request: pytest.FixtureRequest, kind: str
    ) -> None:
        front = await start_front(request.getfixturevalue(kind))
        chance = random.Random(1)
        contents = [bytes([n]) * 300_000 for n in range(120)]
        await front.put(url(kind), data=contents[0])
        for content in contents[1:]:
            head = f"PUT /file?path={kind} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n"
            _, writer = await raw(front.port or 0, head.encode(), content[: chance.choice((-1, 300_000))])
            await asyncio.sleep(chance.uniform(0, 0.005))
            writer.transport.abort()
            assert await (await front.get(url(kind))).read() in contents

    async def test_in_the_middle_of_a_download_everybody_else_goes_on(
        self, start_front: StartFront, our_nodes: Nodes
    ) -> None:
        front = await start_front(our_nodes)
        await front.put(url("large"), data=bytes(2_000_000))

        async def leave() -> None:
            reader, writer = await raw(front.port or 0, b"GET /file?path=large HTTP/1.1\r\nHost: x\r\n\r\n")
            await reader.read(1000)
            writer.transport.abort()

        async def stay() -> None:
            assert len(await (await front.get(url("large"))).read()) == 2_000_000

        await asyncio.gather(*(leave() if n % 2 else stay() for n in range(40)))

    async def test_a_body_that_is_no_http_is_400(self, start_front: StartFront, our_nodes: Nodes) -> None:
        front = await start_front(our_nodes)
        head = b"PUT /file?path=a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        reader, writer = await raw(front.port or 0, head, b"nonsense\r\n")
        assert b" 400 " in await reader.readline()
        writer.close()
        assert (await front.get(url("a"))).status == 404


class TestExpect100:
    async def test_the_body_is_asked_for_when_it_is_wanted(self, start_front: StartFront, our_nodes: Nodes) -> None:
        front = await start_front(our_nodes)
        head = b"PUT /file?path=e HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
        reader, writer = await raw(front.port or 0, head)
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"body")
        assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
        writer.close()

    @pytest.mark.parametrize(
        ("query", "length", "status"), [("path=e", 3_000_000, 413), ("path=/e", 4, 400), ("", 4, 400)]
    )
    async def test_a_body_that_is_not_wanted_is_not_asked_for(
        self, start_front: StartFront, our_nodes: Nodes, query: str, length: int, status: int
    ) -> None:
        front = await start_front(our_nodes)
        head = f"PUT /file?{query} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\nExpect: 100-continue\r\n\r\n"
        reader, writer = await raw(front.port or 0, head.encode())
        assert (
            await reader.readline()
            == f"HTTP/1.1 {status} {'Request Entity Too Large' if status == 413 else 'Bad Request'}\r\n".encode()
        )
        writer.close()

    @pytest.mark.parametrize("expect", [b"a miracle", b"\xff"])
    async def test_another_expectation_is_417(self, start_front: StartFront, our_nodes: Nodes, expect: bytes) -> None:
        front = await start_front(our_nodes)
        head = b"PUT /file?path=e HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nExpect: " + expect + b"\r\n\r\n"
        reader, writer = await raw(front.port or 0, head, b"x")
        answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 417 ")
        assert b"application/problem+json" in answer
        writer.close()

    async def test_a_type_that_is_none_is_told_before_the_body_is_asked_for(
        self, start_front: StartFront, our_nodes: Nodes
    ) -> None:
        front = await start_front(our_nodes)
        head = b"PUT /file?path=e HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nContent-Type: none\r\n"
        reader, writer = await raw(front.port or 0, head, b"Expect: 100-continue\r\n\r\n")
        assert b" 400 " in await reader.readline()
        writer.close()

    async def test_whoever_is_not_asked_for_his_body_is_told_that_the_connection_ends(
        self, start_front: StartFront, our_nodes: Nodes
    ) -> None:
        """What he sends next may be the body or another request: nobody could tell."""
        front = await start_front(our_nodes)
        head = b"PUT /file?path=/e HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
        reader, writer = await raw(front.port or 0, head)
        assert b"\r\nConnection: close\r\n" in await reader.readuntil(b"\r\n\r\n")
        writer.close()


class TestRequestsThatAreBroken:
    @pytest.mark.parametrize(
        "broken", [b"GET / HTTP/1.1\r\n\r\n", b"nonsense\r\n\r\n", b"PUT /file?path=a HTTP/1.1\r\nHost: x\r\n"
                   b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"],
    )  # fmt: skip
    async def test_a_request_that_is_not_http_is_400_and_a_line_of_the_log(
        self, start_front: StartFront, our_nodes: Nodes, broken: bytes, caplog: pytest.LogCaptureFixture
    ) -> None:
        front = await start_front(our_nodes)
        caplog.set_level("INFO")
        reader, writer = await raw(front.port or 0, broken)
        assert b" 400 " in await reader.readline()
        writer.close()
        assert not [record for record in caplog.records if record.exc_info and record.levelname != "DEBUG"]

    async def test_a_transfer_coding_other_than_chunked_is_501_and_nothing_is_stored(
        self, start_front: StartFront, our_nodes: Nodes
    ) -> None:
        front = await start_front(our_nodes)
        head = b"PUT /file?path=coded HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"
        reader, writer = await raw(front.port or 0, head, b"1\r\nx\r\n0\r\n\r\n")
        assert b" 501 " in await reader.readline()
        writer.close()
        assert (await front.get(url("coded"))).status == 404

    async def test_a_form_whose_boundary_is_not_ascii_is_400(self, start_front: StartFront, our_nodes: Nodes) -> None:
        front = await start_front(our_nodes)
        for boundary in (b"\xff", "é".encode(), "€".encode()):
            head = b"PUT /file?path=a HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=" + boundary
            reader, writer = await raw(front.port or 0, head, b"\r\nContent-Length: 0\r\n\r\n")
            assert b" 400 " in await reader.readline()
            writer.close()


class TestConnections:
    async def test_one_too_many_is_told_so_and_there_is_room_again_when_one_ends(
        self, our_nodes: Nodes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("sfss.web.connections.MAX_CONNECTIONS", 3)
        sock = socket.create_server((HOST, 0))
        port = sock.getsockname()[1]
        stop, ready = asyncio.Event(), asyncio.Event()
        settings = config.load(overrides={"storage": {"nodes": our_nodes}})
        serving = asyncio.create_task(serve(settings, sock, stop, ready))
        await ready.wait()
        request = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
        served = [await raw(port, request) for _ in range(3)]
        for reader, _ in served:
            assert b" 200 " in await reader.readline()
        reader, writer = await raw(port)
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"Retry-After" in answer
        writer.close()
        served.pop()[1].close()
        await asyncio.sleep(0.05)
        reader, writer = await raw(port, request)
        assert b" 200 " in await reader.readline()
        writer.close()
        for _, writer in served:
            writer.close()
        stop.set()
        await serving

    def test_there_are_never_more_than_the_open_files_allow(self) -> None:
        limits = "import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (600, 700)); from sfss.web.connections import *;"
        told = subprocess.run(
            [sys.executable, "-c", f"{limits} print(*room(), r.getrlimit(r.RLIMIT_NOFILE)[0])"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert told.stdout.split() == ["350", "175", "700"]

    async def test_many_who_come_at_once_are_let_in_without_coming_again(
        self, our_nodes: Nodes, tmp_path: Path
    ) -> None:
        many = 600
        with Service(tmp_path, settings={"SFSS_STORAGE_NODES": ",".join(our_nodes)}) as service:
            assert service.process is not None
            service.process.send_signal(signal.SIGSTOP)  # whoever comes waits in the kernel, if there is room
            try:
                async with asyncio.timeout(5):
                    opened = await asyncio.gather(
                        *(raw(service.port, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n") for _ in range(many))
                    )
            finally:
                service.process.send_signal(signal.SIGCONT)
            for reader, writer in opened:
                assert b" 200 " in await reader.readline()
                writer.close()

    def test_too_few_open_files_are_named(self, tmp_path: Path) -> None:
        command = f"ulimit -n 100; exec {sys.executable} -m sfss --port 0"
        environment = {"PATH": "/usr/bin:/bin", "SFSS_STORAGE_NODES": f"{HOST}:1"}
        told = subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
        )
        assert told.returncode == 2
        assert "sfss: at most 100 files may be open here" in told.stderr
        assert "Traceback" not in told.stderr


class TestNodesThatGoAway:
    async def test_only_files_on_that_node_answer_504_and_at_once_and_come_back_with_it(
        self, start_front: StartFront, our_nodes: Nodes, tmp_path: Path
    ) -> None:
        port = free_port()
        gone, nodes = f"{HOST}:{port}", [*our_nodes, f"{HOST}:{port}"]
        with sfss_node(tmp_path / "node", port=port) as (_, process):
            front = await start_front(nodes, storage={"retry_after": 0.3})
            there, elsewhere = path_on(nodes, gone), path_on(nodes, our_nodes[0])
            for path in (there, elsewhere):
                assert (await front.put(url(path), data=path.encode())).status == 200
            process.kill()
            process.wait()
            await asyncio.sleep(0.05)
            begun = time.monotonic()
            for method in ("GET", "PUT", "DELETE"):
                answer = await front.request(method, url(there), data=b"x")
                assert answer.status == 504
                assert gone in (await answer.json(content_type=None))["detail"]
                assert answer.headers["Retry-After"] == "1"
            assert (await front.head(url(there))).status == 504
            assert time.monotonic() - begun < 0.5
            assert await (await front.get(url(elsewhere))).read() == elsewhere.encode()
        with sfss_node(tmp_path / "node", port=port):
            deadline = time.monotonic() + 2
            while (answer := await front.get(url(there))).status == 504:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.02)
            assert await answer.read() == there.encode()

    async def test_a_node_that_stalls_costs_one_time_out_then_504_at_once(
        self, start_front: StartFront, our_nodes: Nodes, tmp_path: Path
    ) -> None:
        with sfss_node(tmp_path / "node") as (port, process):
            stalled, nodes = f"{HOST}:{port}", [*our_nodes, f"{HOST}:{port}"]
            front = await start_front(nodes, storage={"timeout": 0.4, "retry_after": 0.3, "connect_timeout": 0.2})
            there, elsewhere = path_on(nodes, stalled), path_on(nodes, our_nodes[0])
            await front.put(url(there), data=b"content")
            stop_in_its_tracks(process)
            begun = time.monotonic()
            answers = await asyncio.gather(*(front.get(url(there)) for _ in range(20)))
            assert [answer.status for answer in answers] == [504] * 20
            assert time.monotonic() - begun < 1
            begun = time.monotonic()
            assert (await front.get(url(there))).status == 504
            assert (await front.put(url(elsewhere), data=b"x")).status == 200
            assert time.monotonic() - begun < 0.4, "that would be a second time-out"
            process.send_signal(signal.SIGCONT)
            deadline = time.monotonic() + 3
            while (answer := await front.get(url(there))).status == 504:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.02)
            assert await answer.read() == b"content"

    async def test_a_damaged_copy_is_not_served_and_can_be_replaced(
        self, start_front: StartFront, small_memcached: Nodes
    ) -> None:
        front = await start_front(small_memcached)
        await front.put(url("damaged"), data=b"some content")
        reader, writer = await asyncio.open_connection(*small_memcached[0].split(":"))
        writer.write(b"append /damaged 0 0 1\r\nx\r\n")
        assert await reader.readline() == b"STORED\r\n"
        writer.close()
        answer = await front.get(url("damaged"))
        assert answer.status == 504
        assert (await answer.json(content_type=None))["type"] == "urn:sfss:damaged"
        assert (await front.put(url("damaged"), data=b"new")).status == 200
        assert await (await front.get(url("damaged"))).read() == b"new"


class TestStopping:
    @pytest.mark.parametrize("query", ["path=none", "path=none&x=1"], ids=["the quick way", "aiohttp's"])
    async def test_who_sends_as_it_begins_is_answered_and_told_to_hang_up(
        self, our_nodes: Nodes, monkeypatch: pytest.MonkeyPatch, query: str
    ) -> None:
        monkeypatch.setattr("sfss.web.inflight.LAST_WORD", 1.0)
        sock = socket.create_server((HOST, 0))
        stop, ready = asyncio.Event(), asyncio.Event()
        settings = config.load(overrides={"storage": {"nodes": our_nodes}})
        serving = asyncio.create_task(serve(settings, sock, stop, ready))
        await ready.wait()
        request = f"GET /file?{query} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        reader, writer = await raw(sock.getsockname()[1], request)
        assert b" 404 " in await reader.readuntil(b"\r\n\r\n")
        stop.set()
        await asyncio.sleep(0.1)
        writer.write(request)
        assert b"\r\nConnection: close\r\n" in await reader.read()
        writer.close()
        await serving

    async def test_requests_in_flight_finish_and_new_ones_are_turned_away(self, tmp_path: Path) -> None:
        with Service(tmp_path) as service:
            head = b"PUT /file?path=slow HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\nfour"
            reader, writer = await raw(service.port, head)
            await asyncio.sleep(0.3)
            assert service.process is not None
            service.process.terminate()
            await asyncio.sleep(0.5)
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(HOST, service.port)
            writer.write(b"more")
            assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
            writer.close()
            assert await asyncio.to_thread(service.process.wait, 20) == 0
            service.start()
            with urllib.request.urlopen(f"{service.url}/file?path=slow") as answer:
                assert answer.read() == b"fourmore"

    @pytest.mark.parametrize("stuck", ["an upload that stands still", "a download that nobody reads"])
    def test_what_doesn_t_finish_holds_up_the_stop_as_long_as_is_set_and_no_longer(
        self, tmp_path: Path, stuck: str
    ) -> None:
        limits = {"SFSS_SERVER_SHUTDOWN_TIMEOUT": "3", "SFSS_LIMITS_MAX_FILE_SIZE": "32MiB"}
        with Service(tmp_path, settings=limits) as service, socket.socket() as client:
            large = urllib.request.Request(f"{service.url}/file?path=large", data=bytes(32 * 1024**2), method="PUT")
            urllib.request.urlopen(large).close()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
            client.connect((HOST, service.port))
            if "upload" in stuck:
                client.sendall(b"PUT /file?path=slow HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\nfour")
            else:
                client.sendall(b"GET /file?path=large HTTP/1.1\r\nHost: x\r\n\r\n")
            time.sleep(0.5)
            begun = time.monotonic()
            assert service.stop() == 0
            assert 2.9 < time.monotonic() - begun < 5.5

    def test_a_slow_reader_gets_the_whole_answer(self, tmp_path: Path) -> None:
        with Service(tmp_path, settings={"SFSS_LIMITS_MAX_FILE_SIZE": "32MiB"}) as service, socket.socket() as client:
            content = secrets.token_bytes(32 * 1024**2)
            put = urllib.request.Request(f"{service.url}/file?path=large", data=content, method="PUT")
            urllib.request.urlopen(put).close()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            client.connect((HOST, service.port))
            client.sendall(b"GET /file?path=large HTTP/1.1\r\nHost: x\r\n\r\n")
            time.sleep(0.3)
            assert service.process is not None
            service.process.terminate()
            time.sleep(0.5)
            answer = bytearray()
            while piece := client.recv(1 << 20):
                answer += piece
            assert answer.endswith(content)
            assert service.process.wait(20) == 0

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_being_told_twice_is_being_told_once(self, tmp_path: Path, number: signal.Signals) -> None:
        with Service(tmp_path) as service:
            assert service.process is not None
            service.process.send_signal(number)
            time.sleep(0.1)
            service.process.send_signal(number)
            assert service.process.wait(20) == 0
            assert "Traceback" not in service.log.read_text()

    def test_an_idle_connection_doesn_t_hold_up_the_stop(self, tmp_path: Path) -> None:
        with Service(tmp_path) as service:

            async def idle() -> float:
                reader, writer = await raw(service.port, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
                await reader.readuntil(b"\r\n\r\n")
                begun = time.monotonic()
                await asyncio.to_thread(service.stop)
                writer.close()
                return time.monotonic() - begun

            assert asyncio.run(idle()) < 10


class TestTls:
    @pytest.fixture
    def certificate(self, tmp_path: Path) -> tuple[str, str]:
        certificate, key = str(tmp_path / "certificate.pem"), str(tmp_path / "key.pem")
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost",
                   "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True)
        return certificate, key

    def test_with_a_certificate_it_speaks_https_alone(self, certificate: tuple[str, str], tmp_path: Path) -> None:
        tls = {"SFSS_SERVER_TLS_CERTIFICATE": certificate[0], "SFSS_SERVER_TLS_KEY": certificate[1]}
        service = Service(tmp_path, settings=tls)
        trust = ssl.create_default_context(cafile=certificate[0])
        service._serves = lambda: "serves https://" in service.log.read_text()  # type: ignore[method-assign]
        with service:
            url = f"https://{HOST}:{service.port}"
            request = urllib.request.Request(f"{url}/file?path=secret", data=b"content", method="PUT")
            assert urllib.request.urlopen(request, context=trust).status == 200
            assert urllib.request.urlopen(f"{url}/file?path=secret", context=trust).read() == b"content"
            with pytest.raises(OSError):
                urllib.request.urlopen(f"http://{HOST}:{service.port}/livez")

    def test_status_trusts_the_service_s_own_certificate(self, certificate: tuple[str, str], tmp_path: Path) -> None:
        tls = {"SFSS_SERVER_TLS_CERTIFICATE": certificate[0], "SFSS_SERVER_TLS_KEY": certificate[1]}
        service = Service(tmp_path, settings=tls)
        service._serves = lambda: "serves https://" in service.log.read_text()  # type: ignore[method-assign]
        with service:
            command = [sys.executable, "-m", "sfss", "status", "--port", str(service.port)]
            shown = subprocess.run(command, env={**os.environ, **tls}, capture_output=True, text=True, timeout=60)
            assert (shown.returncode, shown.stderr) == (0, "")

    def test_a_key_with_a_passphrase_is_named_and_not_asked_for(
        self, certificate: tuple[str, str], tmp_path: Path
    ) -> None:
        key = str(tmp_path / "secret.pem")
        command = ["openssl", "rsa", "-aes256", "-passout", "pass:secret", "-in", certificate[1], "-out", key]
        subprocess.run(command, check=True, capture_output=True)
        settings = config.load(overrides={"server": {"tls_certificate": certificate[0], "tls_key": key}})
        with pytest.raises(ConfigError, match=r"secret\.pem can't be used"):
            tls_context(settings)

    def test_a_certificate_that_is_none_is_named(self, tmp_path: Path) -> None:
        settings = config.load(overrides={"server": {"tls_certificate": "/none/such.pem", "tls_key": "/none/such.key"}})
        with pytest.raises(ConfigError, match=r"tls_certificate /none/such\.pem"):
            tls_context(settings)


def test_wait_for_fails_in_the_end() -> None:
    with pytest.raises(AssertionError, match="waited"):
        wait_for(lambda: False, timeout=0.05)
