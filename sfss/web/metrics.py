"""``/metrics``: what a Prometheus reads of a front and of the nodes behind it: ``docs/operations/metrics.rst``.

Nothing is counted here: what all workers have counted lies in the tally, and nodes tell their own figures by STATS, as
for /status. So whichever worker answers says the same, but for what it sees of nodes and namespaces itself.

FAMILIES is the whole list; their names are a promise, and a test holds the page against it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

from aiohttp import web
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

import sfss
from sfss.errors import BadRequest, Unavailable
from sfss.files import Files
from sfss.quotas import Quotas
from sfss.traffic import BOUNDS
from sfss.web import tally as counts
from sfss.web.processes import used_by
from sfss.web.tally import Histogram, Tally

_OPENMETRICS, _TEXT = "application/openmetrics-text", "text/plain"
_END = b"# EOF\n"  # of OpenMetrics


class Family(NamedTuple):
    """One metric; a counter's name gets ``_total``."""

    name: str
    kind: str  # counter, gauge, histogram
    labels: tuple[str, ...]
    help: str


_NODE, _STORE = ("node",), ("store",)
FAMILIES = (
    Family("sfss_build_info", "gauge", ("version",), "Which version of sfss this is; always 1."),
    Family("sfss_start_time_seconds", "gauge", (), "Since when it is counted, in seconds since the epoch."),
    # HTTP
    Family("sfss_http_requests", "counter", ("method", "code"), "Requests answered, by their HTTP status."),
    Family("sfss_http_request_duration_seconds", "histogram", ("method",), "From a request's head to its answer."),
    Family("sfss_http_request_size_bytes", "histogram", ("method",), "Bodies of requests that bring one."),
    Family("sfss_http_response_size_bytes", "histogram", ("method",), "Bodies of answers to requests that bring none."),
    Family("sfss_http_requests_in_flight", "gauge", (), "Requests that are being worked on."),
    Family("sfss_http_connections", "gauge", (), "Connections of clients that are open."),
    Family("sfss_access_log_lost_lines", "counter", ("reason",), "Lines of the access log that were not written."),
    # Processes
    Family("sfss_worker_up", "gauge", ("worker",), "Whether the worker is there."),
    Family("sfss_worker_starts", "counter", ("worker",), "Processes that were the worker so far; one is well."),
    Family("sfss_worker_cpu_seconds", "counter", ("worker",), "Processor time of the worker's present process."),
    Family("sfss_worker_resident_memory_bytes", "gauge", ("worker",), "Memory of the worker's present process."),
    Family("sfss_event_loop_lag_seconds", "histogram", (), "How much too late the workers' loops looked at the clock."),
    # Nodes, as the front sees them
    Family("sfss_nodes", "gauge", ("state",), "Nodes that are members, joining, leaving."),
    Family("sfss_node_up", "gauge", _NODE, "Whether the front can use the node."),
    Family("sfss_node_info", "gauge", ("node", "kind", "version"), "What the node is; always 1."),
    Family("sfss_node_request_duration_seconds", "histogram", _NODE, "From a request to the node to its answer."),
    Family("sfss_node_request_failures", "counter", ("node", "reason"), "Requests to the node that failed."),
    # Copies and repair
    Family("sfss_handoffs", "counter", (), "Copies that a spare took in place of a node that was away."),
    Family("sfss_hedged_reads", "counter", (), "Reads that asked another node because the first was slow."),
    Family("sfss_read_repairs", "counter", (), "Copies that were missing, old or damaged, and put right after a read."),
    Family("sfss_late_copy_failures", "counter", (), "Copies that could not be written behind an answer."),
    Family("sfss_damaged_copies", "counter", (), "Copies that were read and did not pass their checksums."),
    Family("sfss_under_replicated_files", "gauge", (), "Files that lack a copy, as far as it is known."),
    Family("sfss_damaged_files", "gauge", (), "Files of which the last walk of repair found no sound copy."),
    Family("sfss_under_replicated_blocks", "gauge", (), "Blocks of large files that lacked a copy at the last sweep."),
    Family("sfss_repair_finished_timestamp_seconds", "gauge", (), "When repair last walked over all files; 0: never."),
    Family("sfss_sweep_finished_timestamp_seconds", "gauge", (), "When all blocks were last swept over; 0: never."),
    Family("sfss_repair_copies_written", "counter", (), "Copies that repair in the background has written."),
    Family("sfss_sweep_blocks_copied", "counter", (), "Copies of blocks that sweeps in the background have written."),
    Family("sfss_sweep_stripes_removed", "counter", (), "Stripes of large files that were nobody's any more."),
    Family("sfss_sweep_freed_bytes", "counter", (), "What sweeps in the background have freed."),
    # Uploads
    Family("sfss_uploads_at_work", "gauge", (), "Resumable uploads that requests are working on."),
    Family("sfss_uploads_open", "gauge", (), "Resumable uploads that could be gone on with at the last sweep."),
    # Namespaces that have a quota
    Family("sfss_namespace_used_bytes", "gauge", ("namespace",), "What the namespace's files have together."),
    Family("sfss_namespace_files", "gauge", ("namespace",), "How many files the namespace has."),
    Family("sfss_namespace_quota_bytes", "gauge", ("namespace",), "What they may have together."),
    Family("sfss_namespace_quota_files", "gauge", ("namespace",), "How many it may have."),
    # The catalogue, where there is one
    Family("sfss_catalogue_up", "gauge", (), "Whether its database is there."),
    Family("sfss_catalogue_behind", "gauge", (), "Whether rows are missing of what is stored."),
    Family("sfss_catalogue_owed_rows", "gauge", (), "Rows that are to be written when it is back."),
    Family("sfss_catalogue_changes", "counter", (), "Files whose rows were written."),
    Family("sfss_catalogue_transactions", "counter", (), "Transactions in which they were."),
    # Write-behind, where a policy has a short-term store
    Family("sfss_write_behind_up", "gauge", _STORE, "Whether the front can give files to the short-term store."),
    Family("sfss_write_behind_files", "gauge", _STORE, "Files that wait, dead letters among them."),
    Family("sfss_write_behind_bytes", "gauge", _STORE, "Bytes that they have."),
    Family("sfss_write_behind_max_files", "gauge", _STORE, "Files that may wait; more are refused."),
    Family("sfss_write_behind_max_bytes", "gauge", _STORE, "Bytes that they may have."),
    Family("sfss_write_behind_memory_bytes", "gauge", _STORE, "Memory that the store has taken."),
    Family("sfss_write_behind_max_memory_bytes", "gauge", _STORE, "Memory that it may take; 0: it has no bound."),
    Family("sfss_write_behind_tasks", "gauge", _STORE, "Files that are to be moved to the nodes."),
    Family("sfss_write_behind_oldest_task_seconds", "gauge", _STORE, "How long the oldest of them has waited."),
    Family("sfss_write_behind_dead_letters", "gauge", _STORE, "Files that could not be moved, and wait for somebody."),
    Family("sfss_write_behind_workers", "gauge", _STORE, "Workers that move files."),
    # Nodes, as they tell themselves
    Family("sfss_node_uptime_seconds", "gauge", _NODE, "How long the node has been running."),
    Family("sfss_node_items", "gauge", _NODE, "Items that the node holds."),
    Family("sfss_node_bytes", "gauge", _NODE, "Bytes of the items that the node holds."),
    Family("sfss_node_limit_bytes", "gauge", _NODE, "Bytes that the node has room for in all."),
    Family("sfss_node_disk_available_bytes", "gauge", _NODE, "Bytes left on the node's disk."),
    Family("sfss_node_disk_size_bytes", "gauge", _NODE, "Bytes of the node's disk."),
    Family("sfss_node_connections", "gauge", _NODE, "Connections to the node that are open."),
    Family("sfss_node_connections_opened", "counter", _NODE, "Connections to the node so far."),
    Family("sfss_node_connections_rejected", "counter", _NODE, "Connections that were too many."),
    Family("sfss_node_commands", "counter", ("node", "command"), "Commands that the node was given."),
    Family("sfss_node_get_hits", "counter", _NODE, "Items that were asked for and there."),
    Family("sfss_node_get_misses", "counter", _NODE, "Items that were asked for and not there."),
    Family("sfss_node_received_bytes", "counter", _NODE, "Bytes that the node has read from its clients."),
    Family("sfss_node_sent_bytes", "counter", _NODE, "Bytes that the node has sent to its clients."),
    Family("sfss_node_cache_bytes", "gauge", _NODE, "Bytes in the node's memory of what is read often."),
    Family("sfss_node_cache_limit_bytes", "gauge", _NODE, "Bytes that it may have."),
    Family("sfss_node_cache_entries", "gauge", _NODE, "Items in the node's memory."),
    Family("sfss_node_disk_reads", "counter", _NODE, "Items that were not in memory and were read from the disk."),
    Family("sfss_node_fsyncs", "counter", _NODE, "Syncs of the write-ahead log."),
    Family("sfss_node_held_writes", "counter", _NODE, "Changes that had to wait until RocksDB had written out more."),
    Family("sfss_node_evictions", "counter", _NODE, "Items that were thrown away to make room: files, lost."),
    Family("sfss_node_expired_items", "counter", _NODE, "Items that had expired and that the node removed itself."),
    Family("sfss_node_slow_commands", "counter", _NODE, "Commands that kept the node's other clients waiting."),
    Family("sfss_node_errors", "counter", ("node", "kind"), "What failed at the node: its disk, most of all."),
    Family("sfss_node_cpu_seconds", "counter", ("node", "mode"), "Processor time of the node."),
    Family("sfss_node_resident_memory_peak_bytes", "gauge", _NODE, "The most memory that the node has had."),
)  # fmt: skip

# What of STATS is told: its name, the family, the labels' values besides the node, and what one of it is.
_STATS: Sequence[tuple[str, str, tuple[str, ...], float]] = (
    ("uptime", "sfss_node_uptime_seconds", (), 1),
    ("curr_items", "sfss_node_items", (), 1),
    ("bytes", "sfss_node_bytes", (), 1),
    ("limit_maxbytes", "sfss_node_limit_bytes", (), 1),
    ("avail_space", "sfss_node_disk_available_bytes", (), 1),
    ("total_space", "sfss_node_disk_size_bytes", (), 1),
    ("curr_connections", "sfss_node_connections", (), 1),
    ("total_connections", "sfss_node_connections_opened", (), 1),
    ("rejected_connections", "sfss_node_connections_rejected", (), 1),
    *((f"cmd_{word}", "sfss_node_commands", (word,), 1) for word in ("get", "set", "delete", "touch", "flush", "scan")),
    ("get_hits", "sfss_node_get_hits", (), 1),
    ("get_misses", "sfss_node_get_misses", (), 1),
    ("bytes_read", "sfss_node_received_bytes", (), 1),
    ("bytes_written", "sfss_node_sent_bytes", (), 1),
    ("cache_bytes", "sfss_node_cache_bytes", (), 1),
    ("cache_limit", "sfss_node_cache_limit_bytes", (), 1),
    ("cache_entries", "sfss_node_cache_entries", (), 1),
    ("disk_reads", "sfss_node_disk_reads", (), 1),
    ("fsyncs", "sfss_node_fsyncs", (), 1),
    ("held_writes", "sfss_node_held_writes", (), 1),
    ("evictions", "sfss_node_evictions", (), 1),
    ("crawler_reclaimed", "sfss_node_expired_items", (), 1),
    ("slow_cmd", "sfss_node_slow_commands", (), 1),
    ("failed_fsyncs", "sfss_node_errors", ("fsync",), 1),
    ("read_errors", "sfss_node_errors", ("read",), 1),
    ("write_errors", "sfss_node_errors", ("write",), 1),
    ("background_errors", "sfss_node_errors", ("background",), 1),
    ("failed_cmd", "sfss_node_errors", ("command",), 1),
    ("rusage_user", "sfss_node_cpu_seconds", ("user",), 1),
    ("rusage_system", "sfss_node_cpu_seconds", ("system",), 1),
    ("rusage_maxrss", "sfss_node_resident_memory_peak_bytes", (), 1024),
)  # fmt: skip

# Of the tally, and of what repair, uploads and the catalogue say of themselves.
_TALLIED = {
    "handoffs": "sfss_handoffs",
    "hedges": "sfss_hedged_reads",
    "mended": "sfss_read_repairs",
    "late_failures": "sfss_late_copy_failures",
    "damaged": "sfss_damaged_copies",
    "copies_written": "sfss_repair_copies_written",
    "blocks_copied": "sfss_sweep_blocks_copied",
    "stripes_swept": "sfss_sweep_stripes_removed",
    "bytes_freed": "sfss_sweep_freed_bytes",
    "in_flight": "sfss_http_requests_in_flight",
    "connections": "sfss_http_connections",
    "uploads": "sfss_uploads_at_work",
}
_OF_REPAIR = {
    "damaged": "sfss_damaged_files",
    "blocks_lacking": "sfss_under_replicated_blocks",
    "finished": "sfss_repair_finished_timestamp_seconds",
    "sweep_finished": "sfss_sweep_finished_timestamp_seconds",
    "uploads_open": "sfss_uploads_open",
}
_OF_STORE = {
    "files": "sfss_write_behind_files",
    "bytes": "sfss_write_behind_bytes",
    "max_files": "sfss_write_behind_max_files",
    "max_bytes": "sfss_write_behind_max_bytes",
    "memory": "sfss_write_behind_memory_bytes",
    "max_memory": "sfss_write_behind_max_memory_bytes",
    "tasks": "sfss_write_behind_tasks",
    "oldest": "sfss_write_behind_oldest_task_seconds",
    "dead": "sfss_write_behind_dead_letters",
}
_TALLIED_OF_CATALOGUE = {
    "owed": "sfss_catalogue_owed_rows",
    "changes": "sfss_catalogue_changes",
    "transactions": "sfss_catalogue_transactions",
}


class MetricsHandlers:
    """The handler, over what it tells of."""

    def __init__(self, files: Files, tally: Tally, quotas: Quotas) -> None:
        self._files = files
        self._tally = tally
        self._quotas = quotas

    async def get(self, request: web.Request) -> web.Response:
        """GET: Prometheus's text format, or OpenMetrics for who prefers that; ``nodes=false``: without others' own."""
        wanted = request.query.get("nodes", "true")
        if wanted not in ("true", "false"):
            raise BadRequest(f"nodes={wanted}: there are true, which is the default, and false")
        whole = wanted == "true"
        stats, behind = await asyncio.gather(self._stats(ask=whole), self._files.behind(ask=whole))
        found = _Found()
        self._of_front(found)
        self._of_processes(found)
        self._of_nodes(found)
        self._of_copies(found)
        self._of_namespaces(found)
        self._of_catalogue(found)
        _of_stores(found, behind)
        _of_stats(found, stats)
        if _prefers_openmetrics(request.headers.get("Accept", "")):
            body, type = await _written(found, openmetrics.generate_latest, _END), openmetrics.CONTENT_TYPE_LATEST
        else:
            body, type = await _written(found, generate_latest), CONTENT_TYPE_PLAIN_0_0_4
        return web.Response(body=body, headers={"Content-Type": type, "Cache-Control": "no-store"})

    async def _stats(self, *, ask: bool) -> Mapping[str, Mapping[str, str]]:
        if ask:
            with contextlib.suppress(Unavailable):  # none of them answers, and that is to be told, too
                return await self._files.stats()
        return {}

    def _of_front(self, found: _Found) -> None:
        tally = self._tally
        found.add("sfss_build_info", 1, sfss.__version__)
        found.add("sfss_start_time_seconds", tally.since)
        for method, answered in tally.answered().items():
            for status, count in answered.statuses.items():
                found.add("sfss_http_requests", count, method, str(status))
            found.add_histogram("sfss_http_request_duration_seconds", counts.DURATIONS, answered.seconds, method)
            sizes = f"sfss_http_{'request' if method in counts.WITH_BODIES else 'response'}_size_bytes"
            found.add_histogram(sizes, counts.SIZES, answered.bytes, method)
        for name, family in _TALLIED.items():
            found.add(family, tally.total(name))
        found.add("sfss_access_log_lost_lines", tally.total("dropped_lines"), "slow")
        found.add("sfss_access_log_lost_lines", tally.total("unwritten_lines"), "failed")

    def _of_processes(self, found: _Found) -> None:
        for number, place in enumerate(self._tally.places(), 1):
            worker = str(number)
            found.add("sfss_worker_up", bool(place.pid), worker)
            found.add("sfss_worker_starts", place.starts, worker)
            if place.pid and (used := used_by(place.pid)) is not None:
                found.add("sfss_worker_cpu_seconds", used.seconds, worker)
                found.add("sfss_worker_resident_memory_bytes", used.bytes, worker)
        found.add_histogram("sfss_event_loop_lag_seconds", counts.LAGS, self._tally.lags())

    def _of_nodes(self, found: _Found) -> None:
        for state, count in self._files.states().items():
            found.add("sfss_nodes", count, state)
        for node, known in self._files.nodes().items():
            found.add("sfss_node_up", known["away"] is None, node)
            if "kind" in known:
                found.add("sfss_node_info", 1, node, str(known["kind"]), str(known["version"]))
            traffic = self._tally.traffic(node)
            found.add_histogram("sfss_node_request_duration_seconds", BOUNDS, traffic.seconds, node)
            for reason, count in traffic.failures.items():
                found.add("sfss_node_request_failures", count, node, reason)

    def _of_copies(self, found: _Found) -> None:
        repair = self._files.repair()
        if not repair:
            return
        for name, family in _OF_REPAIR.items():
            found.add(family, _number(repair[name]))
        # What each worker knows of for itself, and what the last walk has found, which all of them know.
        walked = _number(repair["under_replicated"]) - _number(repair["lacking"])
        found.add("sfss_under_replicated_files", walked + self._tally.total("lacking"))

    def _of_namespaces(self, found: _Found) -> None:
        for tank in self._quotas.tanks:
            if tank.used is not None:
                found.add("sfss_namespace_used_bytes", tank.used.bytes, tank.name)
                found.add("sfss_namespace_files", tank.used.files, tank.name)
            if tank.bytes is not None:
                found.add("sfss_namespace_quota_bytes", tank.bytes, tank.name)
            if tank.files is not None:
                found.add("sfss_namespace_quota_files", tank.files, tank.name)

    def _of_catalogue(self, found: _Found) -> None:
        catalogue = self._files.catalogue()
        if not catalogue:
            return
        found.add("sfss_catalogue_up", not catalogue["away"])
        found.add("sfss_catalogue_behind", bool(catalogue["behind"]))
        for name, family in _TALLIED_OF_CATALOGUE.items():
            found.add(family, self._tally.total(name))


def _of_stores(found: _Found, behind: Mapping[str, Mapping[str, Any]]) -> None:
    for store, state in behind.items():
        found.add("sfss_write_behind_up", state["away"] is None and state["fault"] is None, store)
        for name, family in _OF_STORE.items():
            if (value := state.get(name)) is not None:  # it is away, wasn't asked, or doesn't tell it
                found.add(family, value, store)
        if "workers" in state:
            found.add("sfss_write_behind_workers", len(state["workers"]), store)


def _of_stats(found: _Found, stats: Mapping[str, Mapping[str, str]]) -> None:
    for node, figures in stats.items():
        for name, family, labels, unit in _STATS:
            with contextlib.suppress(KeyError, ValueError):  # one of another kind doesn't tell it, or not as a number
                found.add(family, float(figures[name]) * unit, node, *labels)


async def _written(found: _Found, write: Callable[[Collector], bytes], end: bytes = b"") -> bytes:
    """All of it, one family after the other: with many nodes it takes too long for others to wait for it.

    ``write`` ends what it writes with ``end``.
    """
    pieces = []
    for family in found.collect():
        pieces.append(write(_One(family)).removesuffix(end))
        await asyncio.sleep(0)
    return b"".join([*pieces, end])


class _One(Collector):
    """A family by itself, for prometheus_client."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterable[Metric]:
        return [self._family]


class _Found:
    """What a scrape has found; a family of which nothing was found is left out."""

    def __init__(self) -> None:
        self._families: dict[str, Metric] = {}

    def add(self, name: str, value: float, *labels: str) -> None:
        """A counter's, or a gauge's, value."""
        family = self._family(name)
        assert isinstance(family, CounterMetricFamily | GaugeMetricFamily)
        family.add_metric(labels, value)

    def add_histogram(self, name: str, bounds: Iterable[float], histogram: Histogram, *labels: str) -> None:
        """One of a histogram's."""
        family = self._family(name)
        assert isinstance(family, HistogramMetricFamily)
        upper = [*(f"{bound:.10g}" for bound in bounds), "+Inf"]
        family.add_metric(labels, list(zip(upper, accumulate(histogram.counts), strict=True)), histogram.sum)

    def collect(self) -> Iterable[Metric]:
        """All of it."""
        return list(self._families.values())

    def _family(self, name: str) -> Metric:
        family = self._families.get(name)
        if family is None:
            about = _BY_NAME[name]
            family = self._families[name] = _KINDS[about.kind](name, about.help, labels=about.labels)
        return family


_KINDS = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily, "histogram": HistogramMetricFamily}
_BY_NAME = {family.name: family for family in FAMILIES}


def _prefers_openmetrics(accept: str) -> bool:
    """Whether that stands before the text format in Accept, as a Prometheus sends it that prefers it."""
    named = [part.partition(";")[0].strip().lower() for part in accept.split(",")]
    known = [name for name in named if name in (_OPENMETRICS, _TEXT)]
    return known[:1] == [_OPENMETRICS]


def _number(value: object) -> float:
    return value if isinstance(value, int | float) else 0.0
