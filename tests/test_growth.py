"""``benchmarks.growth``: its arithmetic, its table and its picture; and that what it fills is what a front reads."""

from __future__ import annotations

import itertools
import urllib.request
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.curves import Line, chart
from benchmarks.growth_load import MOST, Load, Wrong, check, content_of, limit, median, name_of, nothing, put
from benchmarks.growth_sections import Row, Told, picture, table
from benchmarks.growth_servers import FRONT_PREFIX, fill, record_of
from sfss import record
from tests.servers import HOST, Service, sfss_node

POINT = nothing("")._replace(requests=100, rate=1234.5, p50=1.234, p99=1000.0, front=80.4, nodes=12.0, load=20.0,
                             cores=1.5, limit="front", front_mib=44.0, nodes_mib=47.0, trouble=None)  # fmt: skip


def test_names_are_all_different_and_far_apart() -> None:
    names = [name_of(number, "f") for number in range(10_000)]
    assert len(set(names)) == 10_000
    numbers = [int(name[2:]) for name in names]
    assert all(abs(one - next) > MOST // 10 for one, next in itertools.pairwise(numbers))


def test_contents_are_all_different_and_have_the_size() -> None:
    contents = [content_of(number, 100) for number in range(1000)]
    assert len(set(contents)) == 1000
    assert {len(content) for content in contents} == {100}
    assert len(content_of(5, 3)) == 3


def test_a_filled_record_is_whole() -> None:
    found = record.decode(record_of(7, Load("GET", "f", 100)))
    assert found.payload == content_of(7, 100)
    assert (found.header.kind, found.header.size) == (record.Kind.FILE, 100)


def test_a_front_reads_what_was_filled_and_a_wrong_file_is_noticed(tmp_path: Path) -> None:
    load = Load("GET", "f", 1000, files=300)
    with sfss_node(tmp_path / "node") as (port, _):
        assert fill(port, load, range(300)) > 0
        with Service(tmp_path, settings={"SFSS_STORAGE_NODES": f"{HOST}:{port}"}) as service:
            check(service.port, FRONT_PREFIX, load, range(300))
            put(service.port, FRONT_PREFIX, load._replace(folder="new"), range(3))
            check(service.port, FRONT_PREFIX, load._replace(folder="new"), range(3))
            spoilt = urllib.request.Request(f"{service.url}{FRONT_PREFIX}{name_of(5, 'f')}", b"other", method="PUT")
            urllib.request.urlopen(spoilt, timeout=10).close()
            with pytest.raises(Wrong, match="5 bytes that aren't right"):
                check(service.port, FRONT_PREFIX, load, range(300))


@pytest.mark.parametrize(
    ("cores", "front", "nodes", "expected"),
    [
        (1.4, 0.99, [0.2], "front"),
        (1.99, 0.7, [0.3], "machine"),
        (1.5, 0.4, [0.1, 0.97], "node"),
        (1.0, 0.4, [0.3], "waits"),
        (1.0, 0.0, [], "waits"),
    ],
)
def test_what_there_is_no_more_of_is_the_limit(cores: float, front: float, nodes: list[float], expected: str) -> None:
    assert limit(cores, 2, front, nodes) == expected


def test_the_figure_is_the_median_run_s_and_none_if_one_has_trouble() -> None:
    runs = [POINT._replace(rate=rate, p50=rate) for rate in (5.0, 1.0, 3.0)]
    assert (median(runs).rate, median(runs).p50) == (3.0, 3.0)
    assert median([*runs, nothing("errors")]).trouble == "errors"


def test_the_table_has_all_figures_and_none_of_a_point_with_trouble() -> None:
    told = Told([Row(10_000, "GET", POINT, ("7",)), Row(10_000, "PUT", nothing("broken"), ("",))], "files", ("more",))
    lines = table(told).splitlines()
    head = "what files requests/s p50 ms p99 ms front us nodes us load us cores limit front MiB nodes MiB more"
    assert " ".join(lines[1].split()) == head
    assert " ".join(lines[3].split()) == "GET 10,000 1,234 1.23 1,000.00 80 12 20 1.50 front 44 47 7"
    assert lines[4].split() == ["PUT", "10,000", "no", "figure"]


def test_the_picture_has_a_line_for_each_kind_where_its_figures_are() -> None:
    rows = [Row(x, what, POINT._replace(rate=float(x))) for x in (1, 10, 100) for what in ("GET", "PUT & more")]
    drawn = ElementTree.fromstring(picture(Told([*rows, Row(1000, "GET", nothing("broken"))], "nodes"), "Cost of it"))
    lines = [
        [tuple(map(float, point.split(","))) for point in line.get("points", "").split()]
        for line in drawn.iter("{http://www.w3.org/2000/svg}polyline")
    ]
    texts = [text.text for text in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert [len(line) for line in lines] == [3, 3]
    first, second, third = lines[0]
    assert third[0] - second[0] == pytest.approx(second[0] - first[0], abs=0.2)  # the axis is logarithmic
    assert first[1] > second[1] > third[1]
    assert {"GET", "PUT & more", "Requests/s of it", "nodes", "requests/s", "1", "10", "100"} <= set(texts)


def test_large_numbers_on_the_axes_are_written_out() -> None:
    drawn = chart("t", "x", "y", [Line("a", [(10_000, 2e6), (10_000_000, 1e6)])])
    assert ">10,000,000<" in drawn
    assert ">2,000,000<" in drawn


def test_a_chart_of_one_point_or_of_nothing() -> None:
    assert "<circle" in chart("t", "x", "y", [Line("a", [(5.0, 0.0)])])
    with pytest.raises(ValueError, match="nothing"):
        chart("t", "x", "y", [Line("a", [])])
