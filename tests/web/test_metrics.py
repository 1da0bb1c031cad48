"""/metrics: what has happened is there, once, whichever worker tells it; by names that the page has."""

from __future__ import annotations

import asyncio
import io
import os
import re
import signal
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from sfss.web.metrics import FAMILIES, _prefers_openmetrics
from sfss.web.sampling import EVERY, PAUSE
from tests.conftest import Client, Nodes, StartFront, three_nodes
from tests.redis import Redis, redis
from tests.servers import HOST, Service, free_port, sfss_node, stop_in_its_tracks, wait_for
from tests.test_prometheus import promtool

PAGE = Path(__file__).parent.parent.parent / "docs" / "operations" / "metrics.rst"


class Told(NamedTuple):
    """What a scrape tells."""

    text: str
    samples: Mapping[tuple[str, frozenset[tuple[str, str]]], float]

    @classmethod
    def by(cls, text: str) -> Told:
        found = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                at = sample.name, frozenset(sample.labels.items())
                assert at not in found, f"{at} is there twice"
                found[at] = sample.value
        return cls(text, found)

    def get(self, name: str, **labels: str) -> float | None:
        return self.samples.get((name, frozenset(labels.items())))


async def scrape(front: Client, query: str = "") -> Told:
    answer = await front.get(f"/metrics{query}")
    assert answer.status == 200
    return Told.by(await answer.text())


async def sampled(front: Client) -> Told:
    """When what was done until now has been seen by the sampler."""
    await asyncio.sleep(PAUSE * (EVERY + 1))
    return await scrape(front)


def scrape_service(service: Service) -> Told:
    with urllib.request.urlopen(f"{service.url}/metrics", timeout=30) as answer:
        return Told.by(answer.read().decode())


async def test_requests_are_counted_by_method_and_status(start_front: StartFront, our_nodes: Nodes) -> None:
    front = await start_front(our_nodes)
    for _ in range(3):
        await front.put("/file?path=metrics/a", data=b"x" * 1000)  # quick
    await front.get("/file?path=metrics/a")
    await front.get("/file?path=metrics/none")
    await front.head("/file?path=metrics/a")  # aiohttp's
    await front.post("/file?path=metrics/b", data={"upload_file": io.BytesIO(b"form")})
    await front.delete("/file?path=metrics/b")
    await front.get("/nothing")
    told = await scrape(front)
    requests = {
        (method, code): told.get("sfss_http_requests_total", method=method, code=code)
        for method, code in [("PUT", "200"), ("GET", "200"), ("GET", "404"), ("HEAD", "200"), ("POST", "201"),
                             ("DELETE", "204")]
    }  # fmt: skip
    assert list(requests.values()) == [3, 1, 2, 1, 1, 1]
    assert told.get("sfss_http_request_duration_seconds_count", method="PUT") == 3
    assert 0 < (told.get("sfss_http_request_duration_seconds_sum", method="PUT") or 0) < 60
    assert told.get("sfss_http_request_size_bytes_sum", method="PUT") == 3000
    assert told.get("sfss_http_request_size_bytes_bucket", method="PUT", le="256") == 0
    assert told.get("sfss_http_request_size_bytes_bucket", method="PUT", le="1024") == 3
    assert told.get("sfss_http_request_size_bytes_bucket", method="PUT", le="+Inf") == 3
    assert (told.get("sfss_http_response_size_bytes_sum", method="GET") or 0) >= 1000
    assert told.get("sfss_http_response_size_bytes_sum", method="HEAD") == 0
    assert told.get("sfss_http_response_size_bytes_sum", method="PUT") is None


@pytest.fixture
def own_nodes(tmp_path: Path) -> Iterator[Nodes]:
    with three_nodes(tmp_path) as nodes:
        yield nodes


@pytest.fixture
def short_term(tmp_path: Path) -> Iterator[Redis]:
    with redis(tmp_path / "short-term") as server:
        yield server


async def test_promtool_takes_all_of_it(
    start_front: StartFront, own_nodes: Nodes, short_term: Redis, tmp_path: Path
) -> None:
    front = await start_front(
        own_nodes,
        storage={"copies": 3, "write_quorum": 2, "read_quorum": 2},
        catalogue={"url": f"sqlite:///{tmp_path / 'catalogue.db'}"},
        namespace=[{"name": "full", "quota": "1GiB", "quota_files": 100}],
        repair={},
        policy=[{"prefix": "behind/", "write_behind": short_term.url}],
    )
    await front.put("/file?path=full/a", data=b"x")
    await front.get("/file?path=full/a")
    deadline = time.monotonic() + 30
    while (told := await sampled(front)).get("sfss_namespace_files", namespace="full") is None:
        assert time.monotonic() < deadline
    checked = promtool("check", "metrics", input=told.text)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
    # This front has all that there may be: so each family is there, and none that the list has not.
    families = {family.name: family for family in text_string_to_metric_families(told.text)}
    assert families.keys() == {family.name for family in FAMILIES}
    for family in FAMILIES:
        shown = families[family.name]
        assert (shown.type, shown.documentation) == (family.kind, family.help)
        labels = {frozenset(sample.labels) - {"le"} for sample in shown.samples}
        assert labels <= {frozenset(family.labels)}, family.name


async def test_what_is_written_behind_is_told_and_whether_it_can_be(
    start_front: StartFront, our_nodes: Nodes, short_term: Redis
) -> None:
    front = await start_front(
        our_nodes,
        policy=[{"prefix": "behind/", "write_behind": short_term.url}],
        write_behind={"timeout": 1.0, "max_tasks": 5, "max_bytes": "1MiB"},
    )
    for name in "ab":
        await front.put(f"/file?path=behind/{name}", data=bytes(1000))
    store = f"{HOST}:{short_term.port}"

    def figure(name: str) -> float | None:
        return told.get(f"sfss_write_behind_{name}", store=store)

    told = await scrape(front)
    names = ("up", "files", "tasks", "dead_letters", "workers", "max_files", "max_bytes", "max_memory_bytes")
    assert [figure(name) for name in names] == [1, 2, 2, 0, 0, 5, 2**20, 0]
    assert 2000 < (figure("bytes") or 0) < 4000
    assert 0 <= (figure("oldest_task_seconds") or 0) < 60
    assert (figure("memory_bytes") or 0) > 2000
    told = await scrape(front, "?nodes=false")
    assert [figure(name) for name in ("up", "files")] == [1, None]
    short_term.kill()
    told = await scrape(front)
    assert [figure(name) for name in ("up", "files")] == [0, None]


def test_the_page_has_each_metric_as_it_is() -> None:
    rows = re.findall(r"^``(sfss_\w+)`` +(counter|gauge|histogram) +(.*?)  (\S.*)$", PAGE.read_text(), re.MULTILINE)
    shown = [(name, kind, tuple(labels.split()), words) for name, kind, labels, words in rows]
    there = [
        (family.name + ("_total" if family.kind == "counter" else ""), family.kind, family.labels, family.help)
        for family in FAMILIES
    ]
    assert shown == there


def test_no_name_is_there_twice() -> None:
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)


@pytest.mark.parametrize(
    ("accept", "preferred"),
    [
        ("", False),
        ("*/*", False),
        ("application/openmetrics-text", True),
        (
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain",
            True,
        ),
        ("text/plain;version=0.0.4,application/openmetrics-text", False),
        ("application/openmetrics-text;version=nonsense", True),
        (";;,,=", False),
    ],
)
def test_openmetrics_is_for_who_prefers_it(accept: str, preferred: bool) -> None:
    assert _prefers_openmetrics(accept) is preferred


async def test_openmetrics_can_be_read_as_such(start_front: StartFront, our_nodes: Nodes) -> None:
    front = await start_front(our_nodes)
    answer = await front.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert answer.headers["Cache-Control"] == "no-store"
    text = await answer.text()
    assert text.endswith("# EOF\n")
    families = parse_openmetrics(text)  # type: ignore[no-untyped-call]
    assert {family.name for family in families} > {"sfss_http_connections", "sfss_node_errors"}


async def test_nodes_tell_their_own_figures_through_the_front(start_front: StartFront, tmp_path: Path) -> None:
    with sfss_node(tmp_path / "node") as (port, _):
        node = f"{HOST}:{port}"
        front = await start_front([node])
        await front.put("/file?path=a", data=b"x")
        await front.get("/file?path=a")
        told = await sampled(front)
        assert told.get("sfss_node_up", node=node) == 1
        assert told.get("sfss_node_commands_total", node=node, command="set") == 1
        assert (told.get("sfss_node_items", node=node) or 0) >= 1
        assert (told.get("sfss_node_disk_available_bytes", node=node) or 0) > 0
        assert (told.get("sfss_node_request_duration_seconds_count", node=node) or 0) >= 2
        assert 0 < (told.get("sfss_node_request_duration_seconds_sum", node=node) or 0) < 30
        assert (told.get("sfss_event_loop_lag_seconds_count") or 0) >= 3
        without = await scrape(front, "?nodes=false")
        assert without.get("sfss_node_up", node=node) == 1
        assert without.get("sfss_node_items", node=node) is None
    answer = await front.get("/metrics?nodes=perhaps")
    assert answer.status == 400
    assert "nodes=perhaps" in (await answer.json(content_type=None))["detail"]


async def test_a_node_that_is_away_is_told_and_costs_no_answer(start_front: StartFront, our_nodes: Nodes) -> None:
    away = f"{HOST}:{free_port()}"
    front = await start_front([away])
    told = await scrape(front)
    assert told.get("sfss_node_up", node=away) == 0
    assert told.get("sfss_node_items", node=away) is None
    assert told.get("sfss_node_request_failures_total", node=away, reason="timeout") == 0


async def test_what_a_node_lets_wait_is_counted_as_a_failure(start_front: StartFront, tmp_path: Path) -> None:
    with sfss_node(tmp_path / "node") as (port, process):
        node = f"{HOST}:{port}"
        front = await start_front([node], storage={"timeout": 0.3, "connect_timeout": 0.3})
        await front.put("/file?path=a", data=b"x")
        stop_in_its_tracks(process)
        assert (await front.get("/file?path=a")).status == 504
        told = await sampled(front)
        process.send_signal(signal.SIGCONT)
        assert told.get("sfss_node_request_failures_total", node=node, reason="timeout") == 1
        assert told.get("sfss_http_requests_total", method="GET", code="504") == 1
        assert told.get("sfss_node_up", node=node) == 0


async def test_figures_are_for_who_may_see_the_status(start_front: StartFront, our_nodes: Nodes) -> None:
    front = await start_front(our_nodes, access={"anonymous": ["read"]})
    for method in ("GET", "HEAD"):
        answer = await front.request(method, "/metrics")
        assert answer.status == 401, method


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(tmp_path_factory.mktemp("two"), "--workers", "2") as service:
        yield service


def _ask(service: Service, path: str, times: int) -> None:
    """Each on a connection of its own, so that both workers get some."""
    for _ in range(times):
        with urllib.request.urlopen(f"{service.url}/file?path={path}", timeout=30) as answer:
            answer.read()


def _small(service: Service) -> float:
    """How many GETs had a small answer: scrapes themselves have larger ones."""
    return scrape_service(service).get("sfss_http_response_size_bytes_bucket", method="GET", le="256") or 0.0


def test_all_workers_are_one_sum_which_a_worker_s_death_does_not_lessen(two_workers: Service) -> None:
    service = two_workers
    request = urllib.request.Request(f"{service.url}/file?path=summed", b"12345", method="PUT")
    urllib.request.urlopen(request, timeout=30).close()
    before = _small(service)
    _ask(service, "summed", 20)
    assert {_small(service) - before for _ in range(8)} == {20}  # whichever answers
    with urllib.request.urlopen(f"{service.url}/status?format=full", timeout=30) as answer:
        pid = int(re.findall(r'"workers": \[\{"pid": "(\d+)"', answer.read().decode())[0])
    told = scrape_service(service)
    assert [told.get("sfss_worker_up", worker=worker) for worker in "12"] == [1, 1]
    assert all((told.get("sfss_worker_resident_memory_bytes", worker=worker) or 0) > 1e6 for worker in "12")

    os.kill(pid, signal.SIGKILL)

    def is_back() -> bool:
        try:
            told = scrape_service(service)
        except OSError:
            return False
        return told.get("sfss_worker_starts_total", worker="1") == 2 and told.get("sfss_worker_up", worker="1") == 1

    wait_for(is_back, timeout=60)
    _ask(service, "summed", 4)
    assert _small(service) - before >= 24  # one of those that said that it isn't back may be among them
