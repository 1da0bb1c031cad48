"""``sfss post``: its options and its words.

Exit statuses of ``sfss post migrate``: 0 the database has what it is to have; 1 it doesn't answer; 2 an option is
wrong, or the database can't be used so.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

from sfss.errors import ConfigError, SfssError
from sfss.post import serving

MIGRATE = """\
Makes the tables and SQL functions of a PostgreSQL node in a database, or brings them up to date. It may be run again at
any time, and by several at once; it says what it did. Run it as a superuser if IMPORT and EXPORT are to be used, which
read and write files of the server; else as the database's owner.
"""

MIGRATE_EXAMPLES = """\
examples:
  createdb data
  sfss post migrate --url postgresql://postgres@127.0.0.1/data --grant files
  SFSS_STORAGE_NODES=postgresql://files:secret@127.0.0.1/data sfss
  psql data -c "select IMPORT('images/a.jpg', '/srv/a.jpg')"

docs/operations/postgresql.rst is the operator's page.
"""


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the parser of ``sfss post``; what it runs without ``migrate`` is the caller's to say."""
    post = commands.add_parser(
        "post",
        help="serve files out of PostgreSQL, each at a URL of its own; make its tables",
        description=serving.DESCRIPTION,
        epilog=serving.EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    serving.add_options(post)
    actions = post.add_subparsers(title="commands", metavar="migrate", description="without one, it serves")
    migrate = actions.add_parser(
        "migrate",
        help="make the tables and SQL functions in a database, or bring them up to date",
        description=MIGRATE,
        epilog=MIGRATE_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    migrate.add_argument("--url", required=True, metavar="URL",
                         help="postgresql://user:password@host:port/database; a password may as well stand in ~/.pgpass"
                         " or $PGPASSWORD")  # fmt: skip
    migrate.add_argument("--partitions", type=int, metavar="N",
                         help="into how many tables the files are spread: 1, 16 or 256 (default: 256, or as many as"
                         " there are). More of them are smaller ones to vacuum and to rebuild, fewer are quicker to"
                         " list; 1 is for engines that distribute a table themselves")  # fmt: skip
    migrate.add_argument("--grant", action="append", default=[], metavar="ROLE",
                         help="let this role read and write the files; may be given several times")  # fmt: skip
    migrate.set_defaults(run=run_migrate)
    return post


def run_migrate(options: argparse.Namespace) -> int:
    """Do what ``sfss post migrate`` does, with its options or without."""
    if not options.url:
        raise ConfigError("--url: name the database, postgresql://user@host:port/database")
    try:
        from sfss.post.migrate import migrate
    except ImportError as error:
        raise ConfigError(
            f"{error.name} isn't installed, which PostgreSQL needs: pip install 'sfss[postgresql]'"
        ) from None
    try:
        asyncio.run(migrate(options.url, getattr(options, "partitions", None), getattr(options, "grant", []), print))
    except ConfigError:
        raise
    except SfssError as error:
        print(f"sfss: {error}", file=sys.stderr)
        return 1
    return 0
