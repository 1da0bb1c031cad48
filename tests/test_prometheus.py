"""What conf/ has for Prometheus and Grafana: promtool takes it, it names what there is, each alert fires when it is to.

promtool is Debian's, of the package prometheus.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from sfss.web.metrics import FAMILIES

ROOT = Path(__file__).resolve().parent.parent
CONF = ROOT / "conf"
ALERTS = CONF / "prometheus-alerts.yml"
_NAME = re.compile(r"\bsfss_[a-z0-9_]+")
_SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}


def promtool(*arguments: str, input: str | None = None) -> subprocess.CompletedProcess[str]:
    binary = shutil.which("promtool")
    assert binary, "promtool is not installed: `make test` installs it, or: apt-get install prometheus"
    return subprocess.run([binary, *arguments], input=input, capture_output=True, text=True, timeout=60)


def exposed() -> set[str]:
    """Every name that a query can ask for."""
    return {family.name + suffix for family in FAMILIES for suffix in _SUFFIXES[family.kind]}


def expressions() -> list[str]:
    """Every query of the dashboard."""
    dashboard = json.loads((CONF / "grafana-dashboard.json").read_text())
    return [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]


@pytest.mark.parametrize(
    "command", [("check", "rules", str(ALERTS)), ("check", "config", str(CONF / "prometheus.yml"))]
)
def test_promtool_takes_what_is_for_prometheus(command: tuple[str, ...]) -> None:
    checked = promtool(*command)
    assert checked.returncode == 0, checked.stderr


def test_every_metric_that_an_alert_asks_for_is_there() -> None:
    named = set(_NAME.findall("\n".join(re.findall(r"expr: (.+)", ALERTS.read_text()))))
    assert len(named) > 15
    assert named <= exposed()


def test_every_metric_that_the_dashboard_asks_for_is_there() -> None:
    named = set(_NAME.findall("\n".join(expressions())))
    assert len(named) > 40
    assert named <= exposed()


def test_prometheus_understands_every_query_of_the_dashboard(tmp_path: Path) -> None:
    rules = [
        {"record": f"query:{number}", "expr": expression.replace("$__rate_interval", "5m").replace("$instance", ".*")}
        for number, expression in enumerate(expressions())
    ]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))  # JSON is YAML
    checked = promtool("check", "rules", str(file))
    assert checked.returncode == 0, checked.stderr


def test_panels_do_not_lie_upon_each_other() -> None:
    dashboard = json.loads((CONF / "grafana-dashboard.json").read_text())
    taken: dict[tuple[int, int], str] = {}
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert taken.setdefault((x, y), panel["title"]) == panel["title"]
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


# --- alerts ---


class Case(NamedTuple):
    """Series as promtool writes them, by which an alert fires, at a time, with labels; and when it doesn't yet."""

    series: dict[str, str]
    at: str
    labels: dict[str, str]
    quiet: dict[str, str]  # the same series, when all is well
    step: str = "1m"  # between two samples


def case(series: str, bad: str, good: str, at: str, **labels: str) -> Case:
    return Case({series: bad}, at, labels, {series: good})


NODE, FRONT = 'instance="f",job="sfss",node="n"', 'instance="f",job="sfss"'
STORE = 'instance="f",job="sfss",store="s"'
_ALL = {"instance": "f", "job": "sfss"}
CASES = {
    "SfssFrontDown": case(f"up{{{FRONT}}}", "1 0x10", "1x10", "5m", **_ALL),
    "SfssNodeDown": case(f"sfss_node_up{{{NODE}}}", "1 0x10", "1x10", "5m", node="n"),
    "SfssNodeFlapping": case(f"sfss_node_up{{{NODE}}}", "1 0 1 0 1 0 1 0 1 0 1", "1 0 1x10", "10m", **_ALL, node="n"),
    "SfssErrors": Case(
        {
            f'sfss_http_requests_total{{{FRONT},code="504"}}': "0+60x20",
            f'sfss_http_requests_total{{{FRONT},code="200"}}': "0+600x20",
        },
        "15m",
        {"instance": "f"},
        {
            f'sfss_http_requests_total{{{FRONT},code="504"}}': "0+1x20",
            f'sfss_http_requests_total{{{FRONT},code="200"}}': "0+600x20",
        },
    ),
    "SfssSlow": Case(
        {
            f'sfss_http_request_duration_seconds_bucket{{{FRONT},method="GET",le="1"}}': "0+1x30",
            f'sfss_http_request_duration_seconds_bucket{{{FRONT},method="GET",le="2.5"}}': "0+60x30",
            f'sfss_http_request_duration_seconds_bucket{{{FRONT},method="GET",le="+Inf"}}': "0+60x30",
        },
        "20m",
        {"instance": "f", "method": "GET"},
        {
            f'sfss_http_request_duration_seconds_bucket{{{FRONT},method="GET",le="1"}}': "0+60x30",
            f'sfss_http_request_duration_seconds_bucket{{{FRONT},method="GET",le="2.5"}}': "0+60x30",
            f'sfss_http_request_duration_seconds_bucket{{{FRONT},method="GET",le="+Inf"}}': "0+60x30",
        },
    ),
    "SfssNodeFailures": case(
        f'sfss_node_request_failures_total{{{NODE},reason="timeout"}}', "0+60x30", "5x30", "20m", node="n"
    ),
    "SfssLoopLag": Case(
        {
            f'sfss_event_loop_lag_seconds_bucket{{{FRONT},le="0.25"}}': "0+1x30",
            f'sfss_event_loop_lag_seconds_bucket{{{FRONT},le="0.5"}}': "0+240x30",
            f'sfss_event_loop_lag_seconds_bucket{{{FRONT},le="+Inf"}}': "0+240x30",
        },
        "20m",
        {"instance": "f"},
        {
            f'sfss_event_loop_lag_seconds_bucket{{{FRONT},le="0.25"}}': "0+240x30",
            f'sfss_event_loop_lag_seconds_bucket{{{FRONT},le="+Inf"}}': "0+240x30",
        },
    ),
    "SfssWorkerRestarts": case(
        f'sfss_worker_starts_total{{{FRONT},worker="2"}}', "1+1x10", "1 2 2x10", "10m", **_ALL, worker="2"
    ),
    "SfssDiskFilling": Case(
        {f"sfss_node_disk_available_bytes{{{NODE}}}": "9x30", f"sfss_node_disk_size_bytes{{{NODE}}}": "100x30"},
        "20m",
        {"node": "n"},
        {f"sfss_node_disk_available_bytes{{{NODE}}}": "11x30", f"sfss_node_disk_size_bytes{{{NODE}}}": "100x30"},
    ),
    "SfssDiskFull": Case(
        {f"sfss_node_disk_available_bytes{{{NODE}}}": "2x30", f"sfss_node_disk_size_bytes{{{NODE}}}": "100x30"},
        "5m",
        {"node": "n"},
        {f"sfss_node_disk_available_bytes{{{NODE}}}": "9x30", f"sfss_node_disk_size_bytes{{{NODE}}}": "100x30"},
    ),
    "SfssNodeErrors": case(
        f'sfss_node_errors_total{{{NODE},kind="fsync"}}', "0 0 1x20", "3x20", "10m", node="n", kind="fsync"
    ),
    "SfssEvicting": case(f"sfss_node_evictions_total{{{NODE}}}", "0 0 1x20", "0x20", "10m", node="n"),
    "SfssUnderReplicated": case(f"sfss_under_replicated_files{{{FRONT}}}", "3x90", "3x50 0x40", "80m", **_ALL),
    "SfssDamaged": case(f"sfss_damaged_files{{{FRONT}}}", "1x10", "0x10", "5m", **_ALL),
    "SfssDamagedCopies": case(f"sfss_damaged_copies_total{{{FRONT}}}", "0 0 1x20", "7x20", "10m", **_ALL),
    "SfssRepairOverdue": case(
        f"sfss_repair_finished_timestamp_seconds{{{FRONT}}}", "60x180", "0x180", "175h", **_ALL
    )._replace(step="1h"),
    "SfssNamespaceFull": Case(
        {
            f'sfss_namespace_used_bytes{{{FRONT},namespace="a"}}': "95x20",
            f'sfss_namespace_quota_bytes{{{FRONT},namespace="a"}}': "100x20",
        },
        "15m",
        {**_ALL, "namespace": "a"},
        {
            f'sfss_namespace_used_bytes{{{FRONT},namespace="a"}}': "85x20",
            f'sfss_namespace_quota_bytes{{{FRONT},namespace="a"}}': "100x20",
        },
    ),
    "SfssCatalogueAway": case(f"sfss_catalogue_up{{{FRONT}}}", "0x20", "1x20", "10m", **_ALL),
    "SfssCatalogueBehind": case(f"sfss_catalogue_behind{{{FRONT}}}", "1x90", "1x30 0x60", "80m", **_ALL),
    "SfssShortTermAway": case(f"sfss_write_behind_up{{{STORE}}}", "1 0x10", "1x10", "5m", store="s"),
    "SfssBacklogFull": Case(
        {f"sfss_write_behind_bytes{{{STORE}}}": "81x20", f"sfss_write_behind_max_bytes{{{STORE}}}": "100x20"},
        "5m",
        {"store": "s"},
        {f"sfss_write_behind_bytes{{{STORE}}}": "79x20", f"sfss_write_behind_max_bytes{{{STORE}}}": "100x20"},
    ),
    "SfssBacklogIdle": Case(
        {f"sfss_write_behind_tasks{{{STORE}}}": "3x20", f"sfss_write_behind_workers{{{STORE}}}": "0x20"},
        "10m",
        {"store": "s"},
        {f"sfss_write_behind_tasks{{{STORE}}}": "3x20", f"sfss_write_behind_workers{{{STORE}}}": "1x20"},
    ),
    "SfssBacklogOld": case(
        f"sfss_write_behind_oldest_task_seconds{{{STORE}}}", "601+60x20", "599x20", "10m", store="s"
    ),
    "SfssDeadLetters": case(f"sfss_write_behind_dead_letters{{{STORE}}}", "0 1x10", "0x10", "5m", store="s"),
    "SfssAccessLogLoses": case(
        f'sfss_access_log_lost_lines_total{{{FRONT},reason="slow"}}', "0 0 5x20", "5x20", "10m", instance="f"
    ),
}


def test_every_alert_is_tried() -> None:
    assert re.findall(r"- alert: (\w+)", ALERTS.read_text()) == list(CASES)


@pytest.mark.parametrize("step", ["1m", "1h"])
def test_each_alert_fires_when_it_is_to_and_not_before(tmp_path: Path, step: str) -> None:
    text = ALERTS.read_text()
    tests: list[dict[str, Any]] = []
    for alert, tried in CASES.items():
        if tried.step != step:
            continue
        about = text[text.index(f"- alert: {alert}\n") :]
        severity = re.search(r"severity: (\w+)", about)
        assert severity is not None
        for series, fires in ((tried.series, True), (tried.quiet, False)):
            # promtool compares annotations, too, which the rules alone are to say: so alerts are asked for as series.
            labels = ",".join(
                f'{name}="{value}"'
                for name, value in sorted(
                    {**tried.labels, "alertname": alert, "alertstate": "firing", "severity": severity[1]}.items()
                )
            )
            samples = [{"labels": f"ALERTS{{{labels}}}", "value": 1}] if fires else []
            asked = f'ALERTS{{alertname="{alert}",alertstate="firing"}}'
            tests.append(
                {
                    "interval": tried.step,
                    "input_series": [{"series": name, "values": values} for name, values in series.items()],
                    "promql_expr_test": [{"expr": asked, "eval_time": tried.at, "exp_samples": samples}],
                }
            )
    file = tmp_path / "tests.yml"
    file.write_text(json.dumps({"rule_files": [str(ALERTS)], "evaluation_interval": step, "tests": tests}))
    tried_all = promtool("test", "rules", str(file))
    assert tried_all.returncode == 0, tried_all.stdout + tried_all.stderr
