"""Rates: so many a second for each, so many at once, whatever the others do."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sfss.access.rates import Rates


def test_a_burst_at_once_and_then_the_rate() -> None:
    rates = Rates(2, 5)
    assert [rates.take("a", 100.0) for _ in range(5)] == [0.0] * 5
    assert rates.take("a", 100.0) == 0.5
    assert rates.take("a", 100.4) > 0.0
    assert rates.take("a", 100.5) == 0.0
    assert rates.take("a", 100.5) == 0.5
    assert [rates.take("a", 200.0) > 0 for _ in range(6)] == [False] * 5 + [True]


def test_who_is_refused_waits_no_longer_for_having_asked() -> None:
    rates = Rates(1, 1)
    assert rates.take("a", 0.0) == 0.0
    for n in range(100):
        assert rates.take("a", n / 200) > 0
    assert rates.take("a", 1.0) == 0.0


def test_each_is_counted_for_himself() -> None:
    rates = Rates(1, 1)
    assert rates.take("a", 0.0) == rates.take("b", 0.0) == 0.0
    assert rates.take("a", 0.0) > 0 < rates.take("b", 0.0)


def test_without_a_rate_nobody_is_counted() -> None:
    rates = Rates(0)
    assert [rates.take("a", 0.0) for _ in range(1000)] == [0.0] * 1000
    assert len(rates) == 0


def test_where_nothing_is_said_a_burst_is_ten_seconds_worth_and_one_at_least() -> None:
    rates = Rates(3)
    assert sum(rates.take("a", 0.0) == 0.0 for _ in range(100)) == 30
    assert Rates(0.001).take("a", 0.0) == 0.0


def test_a_crowd_takes_no_more_memory_than_there_is() -> None:
    rates = Rates(1, 1, most=100)
    for n in range(10_000):
        rates.take(str(n), 0.0)
        rates.take("who asks all the time", 0.0)
    assert len(rates) == 100
    assert rates.take("who asks all the time", 0.0) > 0


@given(
    st.floats(0.01, 1000),
    st.floats(1, 100),
    st.lists(st.floats(0, 10), min_size=1, max_size=200),
)
def test_nobody_ever_gets_more_than_his_burst_and_his_rate(rate: float, burst: float, pauses: list[float]) -> None:
    rates, now, let_in = Rates(rate, burst), 1000.0, 0
    for pause in pauses:
        now += pause
        let_in += rates.take("a", now) == 0.0
    assert let_in <= burst + rate * (now - 1000.0) + 1e-3
