"""Rows of keys and namespaces: all there is to know, and nothing that opens anything."""

from __future__ import annotations

import json

from sfss import config, mirrors
from sfss.access import keys
from sfss.access.keys import Scope
from sfss.config import Namespace


def test_a_key_s_row_tells_all_but_its_secret() -> None:
    made = keys.make("camera", [Scope("photos/", ("write",))], now=1_800_000_000, lifetime=3600)
    (row,) = mirrors.key_rows({made.id: made.key})
    assert (row["id"], row["name"], row["disabled"]) == (made.id, "camera", False)
    assert (row["created"], row["expires"]) == ("2027-01-15T08:00:00.000000Z", "2027-01-15T09:00:00.000000Z")
    assert row["scopes"] == [{"prefix": "photos/", "may": ["write"]}]
    assert made.text.rpartition("_")[2] not in json.dumps(row)


def test_a_key_that_never_expires_has_no_such_time() -> None:
    made = keys.make("", [Scope("", ("admin",))], now=1)
    assert mirrors.key_rows({made.id: made.key})[0]["expires"] is None


def test_a_namespace_s_row_is_its_settings() -> None:
    namespace = Namespace("photos", layout="raid0", pieces=5, quota=config.Size(1000))
    (row,) = mirrors.namespace_rows([namespace])
    assert (row["name"], row["enabled"], row["layout"], row["pieces"], row["quota"]) == (
        "photos",
        True,
        "raid0",
        5,
        1000,
    )
