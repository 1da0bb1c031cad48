"""What docs/ says in a form that can be checked is true."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from sfss import record
from sfss.paths import key_of
from sfss.web.problems import PROBLEMS

DOCS = Path(__file__).parent.parent / "docs"


def test_the_record_of_the_format_s_page_is_what_the_code_makes() -> None:
    page = (DOCS / "record-format.rst").read_text()
    example = page[page.index("An example") :]
    rows = re.findall(r"^ +\d+  ((?:[0-9a-f]{2} ?)+)", example, re.MULTILINE)
    data = bytes.fromhex("".join(rows))
    found = record.decode(data)
    assert found.payload == b"hello\n"
    assert found.header == record.Header(
        kind=record.Kind.FILE,
        version=1767225600_000000,
        front=7,
        size=6,
        sha256=hashlib.sha256(b"hello\n").digest(),
        payload_size=6,
        payload_xxh3=record.payload_checksum(b"hello\n"),
        type="text/plain",
    )
    assert record.encode(found.header, found.payload) == data


def test_the_keys_of_the_format_s_page_are_what_the_code_makes() -> None:
    page = (DOCS / "record-format.rst").read_text()
    rows = re.findall(r"^``([^`]+)`` +``(/[^`]+)``", page, re.MULTILINE)
    assert len(rows) >= 3
    for path, key in rows:
        assert key_of(path) == key.encode()


def test_every_problem_is_on_the_api_s_page_and_no_other() -> None:
    page = (DOCS / "http-api.rst").read_text()
    rows = set(re.findall(r"^(\d{3}) +``([a-z-]+)`` ", page, re.MULTILINE))
    made = {(str(problem.status), problem.name) for problem in PROBLEMS.values()}
    assert {row for row in rows if row[1] != "http"} == made
