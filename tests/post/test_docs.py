"""What docs/operations/postgresql.rst shows of psql is what psql shows, in that order."""

from __future__ import annotations

import re

from tests.postgres import ROOT, Postgres, migrate

PAGE = ROOT / "docs" / "operations" / "postgresql.rst"


def examples() -> list[tuple[str, list[str]]]:
    """Each statement that is shown, and what it is shown to answer."""
    found: list[tuple[str, list[str]]] = []
    for line in PAGE.read_text("utf-8").splitlines():
        if line.startswith("    data=> "):
            found.append((line.removeprefix("    data=> "), []))
            shows = True
        elif found and line.startswith("    ") and shows:
            found[-1][1].append(line.strip())
        else:
            shows = False
    return found


def test_every_statement_answers_as_it_is_shown(shared_postgres: Postgres) -> None:
    folder = shared_postgres.folder()
    (folder / "a.jpg").write_bytes(bytes(range(256)) * 100)
    shared_postgres.psql("postgres", "create role files")
    assert len(examples()) >= 14
    with shared_postgres.database() as url:
        migrate(url, "--grant", "files")
        for statement, shown in examples():
            answer = "\n".join(shared_postgres.says(url, statement.replace("/srv/", f"{folder}/")))
            said = [line for line in answer.replace(f"{folder}/", "/srv/").splitlines() if line != "SET"]
            lines = [
                line for line in said if line.strip() and not line.startswith(("CONTEXT", "SQL statement", "PL/pgSQL"))
            ]
            pattern = "\n".join(re.escape(line).replace(re.escape("..."), ".*") for line in shown)
            assert re.fullmatch(pattern, "\n".join(lines)), (statement, lines)
