"""``sfss node``, and while a file lies at the path that is its first argument, it has no room for any change."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from sfss.cli import main
from sfss.errors import OutOfSpace
from sfss.node.store import Store

_FULL = Path(sys.argv.pop(1))
_write = Store._write


def _write_if_there_is_room(store: Store, *args: Any) -> None:
    if _FULL.exists():
        raise OutOfSpace("out of space storing object")
    _write(store, *args)


setattr(Store, "_write", _write_if_there_is_room)  # noqa: B010  (mypy knows no more of its arguments)
sys.exit(main())
