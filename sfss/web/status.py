"""``/status``, ``/health``, ``/livez`` and ``/readyz``: what the nodes and this front say of themselves."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from aiohttp import web

import sfss
from sfss.errors import BadRequest
from sfss.files import Files
from sfss.web.access import Guard
from sfss.web.processes import used_by
from sfss.web.tally import COPIES, Tally

# Says what is wrong with something; None if it is well. It is asked at each request, and so must not take long.
Check = Callable[[], str | None]
Figures = Callable[[], Mapping[str, str]]  # by name, likewise


class StatusHandlers:
    """The handlers, over the counts that they show."""

    def __init__(
        self,
        files: Files,
        tally: Tally,
        guard: Guard,
        *,
        nodes: Callable[[], Mapping[str, Mapping[str, str]]],
        ring: Figures,
        rebalance: Figures,
    ) -> None:
        """``nodes ring rebalance``: what else is told of these."""
        self._files = files
        self._seen, self._ring, self._rebalance = nodes, ring, rebalance
        self._guard = guard
        self._tally = tally
        self.checks: dict[str, Check] = {}  # of what /health tells besides the nodes, by name

    async def status(self, request: web.Request) -> web.Response:
        """GET /status: every node's STATS; with ``format=full`` the front's figures too."""
        form = request.query.get("format", "flat")
        if form not in ("flat", "full"):
            raise BadRequest(f"format={form}: there are flat, which is the default, and full")
        took: dict[str, float] = {}
        storages = await self._files.stats(took)
        if form == "flat":
            return web.json_response(storages)
        behind = await self._files.behind()
        return web.json_response({"storages": storages, "webserver": self._webserver(took, behind)})

    async def livez(self, _request: web.Request) -> web.Response:
        """GET /livez: 200 as long as the process answers at all."""
        return web.json_response({"status": "alive"})

    async def readyz(self, request: web.Request) -> web.Response:
        """GET /readyz: 200 if at least one node is here, so that requests can be served; else 503."""
        nodes = {node: state["away"] or "here" for node, state in self._files.nodes().items()}
        ready = "here" in nodes.values()
        body: dict[str, object] = {"status": "ready" if ready else "no node is here"}
        if self._guard.may_see_nodes(request):
            body["nodes"] = nodes
        return web.json_response(body, status=200 if ready else 503)

    async def health(self, request: web.Request) -> web.Response:
        """GET /health: 503 if no node is here; ``degraded``, and still 200, if some are away or a check fails."""
        away = {node: state["away"] for node, state in self._files.nodes().items()}
        here = sum(why is None for why in away.values())
        checks = {name: check() for name, check in self.checks.items()}
        well = here == len(away) and not any(checks.values())
        body: dict[str, object] = {"status": "ok" if well else "degraded" if here else "down"}
        if self._guard.may_see_nodes(request):
            body |= {
                "nodes": {"here": here, "away": {node: why for node, why in away.items() if why is not None}},
                "checks": {name: why or "ok" for name, why in checks.items()},
                "version": sfss.__version__,
            }
        return web.json_response(body, status=200 if here else 503)

    def _webserver(self, took: Mapping[str, float], behind: Mapping[str, Mapping[str, Any]]) -> dict[str, object]:
        """Counts are those of all workers together; what is said of nodes and of repair is this one's own view.

        ``took``: in how many seconds each node has just told its figures. ``behind``: how short-term stores are.
        """
        nodes, tally, now = self._nodes(took), self._tally, time.time()
        responses, catalogue = tally.responses(), self._files.catalogue()
        return {
            "version": sfss.__version__,
            "pid": str(os.getpid()),
            "memory": str(used.bytes if (used := used_by(os.getpid())) is not None else 0),
            "time": str(int(now)),
            "uptime": str(int(now - tally.since)),
            "requests": str(sum(responses.values())),
            "responses": {str(status): str(count) for status, count in responses.items()},
            "methods": {
                method: {"requests": str(sum(done.statuses.values())), "seconds": f"{done.seconds.sum:.6f}"}
                for method, done in tally.answered().items()
            },
            "workers": [
                {
                    "pid": str(place.pid),
                    "uptime": str(int(now - place.started) if place.pid else 0),
                    "starts": str(place.starts),
                    "requests": str(place.requests),
                }
                for place in tally.places()
            ],
            "nodes": nodes,
            "ring": self._ring(),
            "rebalance": self._rebalance(),
            "copies": {name: str(tally.total(name)) for name in COPIES},
            "repair": {
                name: value if isinstance(value, str) else str(value) for name, value in self._files.repair().items()
            },
            **({"catalogue": {name: str(value) for name, value in catalogue.items()}} if catalogue else {}),
            **({"write_behind": {store: _told(state) for store, state in behind.items()}} if behind else {}),
            "warnings": [
                *self._files.warnings(),
                *(
                    f"node {node} {caveat}"
                    for node, state in nodes.items()
                    for caveat in cast(Sequence[str], state.get("caveats", ()))
                ),
                *(f"the catalogue is {name}: {why}" for name in ("away", "behind") if (why := catalogue.get(name))),
                *(warning for store, state in behind.items() for warning in _wrong_with(store, state)),
            ],
        }

    def _nodes(self, took: Mapping[str, float]) -> dict[str, dict[str, object]]:
        """Every node's state; ``took`` in seconds is how long its figures took, and is missing if they didn't come."""
        seen = self._seen()
        return {
            node: {
                **state,
                **seen.get(node, {}),
                **({"took": f"{took[node]:.6f}"} if node in took else {}),
            }
            for node, state in self._files.nodes().items()
        }


def _told(state: Mapping[str, Any]) -> dict[str, object]:
    """How a short-term store is; numbers as texts, as all of them are. What it doesn't tell is left out."""
    words = {name: state[name] for name in ("away", "fault")}
    told = {
        name: value if isinstance(value, str) else f"{value:.0f}"
        for name, value in state.items()
        if name not in (*words, "warnings", "workers") and value is not None
    }
    workers = {name: str(tasks) for name, tasks in state.get("workers", {}).items()}
    return {**words, **told, "workers": workers}


def _wrong_with(store: str, state: Mapping[str, Any]) -> list[str]:
    """What somebody should hear of."""
    named = f"the short-term store {store}"
    wrong = [f"{named} is away: {state['away']}"] if state["away"] else []
    wrong += [f"{named} takes no files: {state['fault']}"] if state["fault"] else []
    wrong += [f"{named}: {warning}" for warning in state["warnings"]]
    if dead := state.get("dead"):
        wrong.append(f"{named} has {dead} dead letters: see sfss worker dead")
    if state.get("tasks") and not state.get("workers"):
        wrong.append(f"{named} has tasks, and nobody works at them: run sfss worker")
    return wrong
