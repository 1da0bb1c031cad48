"""The SQL of docs/operations/catalogue.rst runs as it stands there, on SQLite and on PostgreSQL."""

from __future__ import annotations

import re
from pathlib import Path

from sfss.catalogue import statements
from sfss.catalogue.database import Database
from tests.catalogue.support import ask, is_in_order, put, until
from tests.conftest import Nodes, StartFront

PAGE = Path(__file__).parent.parent.parent / "docs" / "operations" / "catalogue.rst"


def examples() -> list[str]:
    """Every statement that is shown."""
    blocks = re.findall(r"::\n\n((?:    .*\n|\n)+)", PAGE.read_text("utf-8"))
    sql = "\n".join(block for block in blocks if block.strip().startswith("SELECT"))
    return [statement.strip() for statement in sql.split(";") if statement.strip()]


async def test_every_example_runs_and_finds_what_is_there(start_front: StartFront, own_nodes: Nodes, url: str) -> None:
    front = await start_front(own_nodes, catalogue={"url": url}, limits={"max_file_size": "8MiB"})
    await until(lambda: is_in_order(front))
    await put(front, "photos/cat.jpg", bytes(3 * 2**20))
    await put(front, "photos/copy.jpg", bytes(3 * 2**20))

    async def are_nodes_there() -> bool:
        return len(await ask(url, "SELECT * FROM nodes")) == len(own_nodes)

    await until(are_nodes_there)
    async with front.post("/uploads?path=up", headers={"Tus-Resumable": "1.0.0", "Upload-Length": "6"}) as answer:
        assert answer.status == 201
    database = Database(url, timeout=20.0)
    await database.open()
    async with database.writing() as transaction:
        space = {"name": "pics", "enabled": True, "layout": "raid0", "pieces": 5, "owner": "x"}
        await statements.mirror(transaction, "namespaces", [space])
        await statements.mirror(transaction, "keys", [{"id": "k1", "name": "me", "hash": "abc", "created": "2026"}])
    await database.close()
    found = {statement: await ask(url, statement) for statement in examples()}
    assert len(found) >= 14
    by_start = {re.sub(r"\s+", " ", statement)[:40]: rows for statement, rows in found.items()}
    assert [row["path"] for row in by_start["SELECT path, size, modified FROM files W"]] == [
        "photos/cat.jpg",
        "photos/copy.jpg",
    ] or len(by_start["SELECT path, size, modified FROM files W"]) == 2
    pieces = by_start["SELECT number, copy, pieces.node, nodes."]
    assert {piece["state"] for piece in pieces} == {"here"}
    assert sum(piece["size"] for piece in pieces) == 3 * 2**20
    assert [row["name"] for row in by_start["SELECT name, enabled, layout, quota FROM"]] == ["pics"]
    assert [row["id"] for row in by_start["SELECT id, name, created, expires FROM k"]] == ["k1"]
    (twice,) = by_start["SELECT sha256, count(*) AS files, sum(si"]
    assert twice["files"] == 2
    (upload,) = by_start["SELECT upload, path, received, size, exp"]
    assert (upload["path"], upload["received"], upload["size"]) == ("up", 0, 6)
    points = by_start["SELECT node, count(*) AS points, min(poi"]
    assert [row["points"] for row in points] == [160] * len(own_nodes)


def test_the_page_shows_every_table() -> None:
    shown = " ".join(examples())
    script = (PAGE.parent.parent.parent / "sfss" / "catalogue" / "sql" / "0001-files.sql").read_text("utf-8")
    behind_the_view = {"places", "striped_pieces"}
    for table in {*re.findall(r"CREATE (?:TABLE|VIEW) (\w+)", script)} - behind_the_view:
        assert re.search(rf"\b(FROM|JOIN) {table}\b", shown), table
