"""The suite's command line: what is asked for is measured, and nothing else."""

from __future__ import annotations

import itertools

import pytest

from benchmarks import suite
from benchmarks.plan import SECTIONS


def wanted(*arguments: str) -> dict[str, list[str]]:
    sections = suite._wanted(suite._parser().parse_args(arguments))
    return {section.name: [table.name for table in section.tables] for section in sections}


def test_without_a_word_all_is_measured() -> None:
    assert list(wanted()) == list(SECTIONS)
    assert tuple(itertools.chain(*wanted().values())) == suite.TABLES


def test_a_table_can_be_measured_by_itself() -> None:
    assert wanted("--tables", "put") == {"centre": ["put"]}
    assert wanted("--tables", "size-put", "put", "get") == {"centre": ["get", "put"], "size": ["size-put"]}
    assert wanted("--sections", "size", "--tables", "size-get") == {"size": ["size-get"]}


def test_a_table_that_the_sections_haven_t_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        suite.main(["--sections", "size", "--tables", "put"])
    assert ended.value.code == 2
    assert "none of these sections has the tables put" in capsys.readouterr().err
