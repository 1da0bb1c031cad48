"""What the suite makes of its figures: medians of ratios, verdicts, tables and pictures."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence

import pytest

from benchmarks.pictures import picture
from benchmarks.plan import CONTENDERS, SECTIONS, Row, Section, Table
from benchmarks.results import MUSTS, Must, Outcome, Outcomes, Round, ratio, show, verdicts

OURS, THEIRS = Row("sfss-node"), Row("nginx-memcached")
TABLE = Table("get", "GET, 4 KiB", (OURS, THEIRS), "nginx-memcached")


def outcome(rates: Sequence[float], *, first: int = 1, p99: float = 2.0, trouble: str | None = None) -> Outcome:
    made = Outcome()
    made.trouble = trouble
    for number, rate in enumerate(rates, first):
        made.rounds[number] = Round(rate, 1.0, p99, 3.0, 0.02, 0.01, 0.005, 40 * 2**20, 0)
    return made


def test_a_ratio_is_the_median_of_those_of_the_same_round() -> None:
    # the median of ours over the median of theirs would be 1
    assert ratio(outcome([100, 200, 300]), outcome([50, 200, 600]), "rate") == 1.0
    assert ratio(outcome([100, 300, 200]), outcome([200, 100, 100]), "rate") == 2.0
    assert ratio(outcome([100], p99=6.0), outcome([100], p99=2.0), "p99") == 3.0


def test_a_round_that_only_one_has_had_counts_for_none() -> None:
    assert ratio(outcome([100, 900]), outcome([100]), "rate") == 1.0
    assert ratio(outcome([900], first=2), outcome([100]), "rate") is None


def test_there_is_no_ratio_to_what_has_no_figure() -> None:
    assert ratio(outcome([100]), outcome([100], trouble="3 answers with another body"), "rate") is None
    assert ratio(outcome([]), outcome([100]), "rate") is None
    assert ratio(None, outcome([100]), "rate") is None
    assert ratio(outcome([1]), outcome([0]), "rate") is None


@pytest.mark.parametrize(
    ("rate", "says"),
    [(1.3, "yes, and the aim"), (1.25, "yes, and the aim"), (1.24, "yes"), (1.0, "yes"), (0.999, "NO")],
)
def test_a_bound_from_below_holds_from_the_bound_on(rate: float, says: str) -> None:
    must = Must("faster", "get", OURS, THEIRS, 1.0, aim=1.25)
    outcomes = {("get", OURS): outcome([rate * 100]), ("get", THEIRS): outcome([100])}
    assert must.verdict(outcomes) == ("faster", "at least 1", "1.25", f"{rate:.3f}", says)


@pytest.mark.parametrize(("p99", "says"), [(5.9, "yes"), (6.0, "yes"), (6.1, "NO")])
def test_a_bound_from_above_holds_up_to_the_bound(p99: float, says: str) -> None:
    must = Must("not late", "half", OURS, THEIRS, 3.0, at_least=False, figure="p99")
    outcomes = {("half", OURS): outcome([1], p99=p99), ("half", THEIRS): outcome([9], p99=2.0)}
    assert must.verdict(outcomes)[-1] == says


def test_what_wasn_t_measured_or_went_wrong_is_never_said_to_hold() -> None:
    assert {line.split()[-1] for line in verdicts({}).splitlines()[3:-1]} == {"measured"}  # "not measured"
    must = Must("faster", "get", OURS, THEIRS, 1.0)
    wrong = {("get", OURS): outcome([500], trouble="1 answers with another body"), ("get", THEIRS): outcome([100])}
    assert must.verdict(wrong)[-2:] == ("-", "no figure")


def test_a_table_has_medians_ranges_and_ratios_and_no_figure_of_what_made_errors() -> None:
    outcomes: Outcomes = {("get", OURS): outcome([1000, 3000, 1500]), ("get", THEIRS): outcome([1000, 1000, 1000])}
    lines = show(TABLE, outcomes).splitlines()
    assert lines[1].split()[:5] == ["contender", "requests/s", "lowest", "highest", "ratio"]
    assert lines[3].split("fsync")[1].split() == [
        *("1,500", "1,000", "3,000", "1.50", "1.00", "2.00", "3.00", "0.020", "-", "0.005", "40", "-")
    ]
    assert "1.00" in lines[4]
    outcomes["get", OURS].trouble = "no"
    assert [line for line in show(TABLE, outcomes).splitlines() if "no figure" in line and "1,500" not in line]


def test_the_plan_compares_what_it_measures() -> None:
    for section in SECTIONS.values():
        for table in section.tables:
            assert len(set(table.rows)) == len(table.rows)
            for row in table.rows:
                assert (row.contender, row.workers) in CONTENDERS
                assert table.reference_of(row), (table.name, row)
    names = [table.name for section in SECTIONS.values() for table in section.tables]
    assert len(set(names)) == len(names)


def test_what_must_show_is_measured_in_the_centre() -> None:
    centre = {table.name: table.rows for table in SECTIONS["centre"].tables}
    for must in MUSTS:
        if must.table in centre or must.table != "in-front":  # which is there with its contenders
            assert {must.row, must.reference} <= set(centre[must.table]), must.text


@pytest.mark.parametrize("section", SECTIONS.values(), ids=SECTIONS)
def test_every_table_has_a_picture(section: Section) -> None:
    for table in section.tables:
        outcomes: Outcomes = {(table.name, row): outcome([100.0 + n, 90]) for n, row in enumerate(table.rows)}
        drawn = picture(table, outcomes)
        assert drawn
        shapes = [each.tag.rpartition("}")[2] for each in ElementTree.fromstring(drawn).iter()]
        assert shapes.count("circle" if table.varies else "rect") >= len(table.rows)
        assert picture(table, {}) is None
