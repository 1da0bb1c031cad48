"""The README's examples, run as they stand: each command succeeds and prints what the README shows.

What changes from run to run is written ``...`` there. Only the port is another, so that a service of the developer's
own may be running.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sfss.config import Settings
from tests.servers import Service

README = Path(__file__).parent.parent / "README.rst"


def examples() -> list[tuple[str, str]]:
    """Each command behind a ``$``, with the output shown below it."""
    blocks = re.findall(r"::\n\n((?:    .*\n|\n)+)", README.read_text("utf-8"))
    lines = [line[4:] for block in blocks if block.startswith("    $ ") for line in block.strip("\n").split("\n")]
    found: list[tuple[str, str]] = []
    for line in lines:
        if line.startswith("$ "):
            found.append((line[2:], ""))
        elif line:
            found[-1] = (found[-1][0], f"{found[-1][1]}{line}\n")
    return found


def matches(shown: str, printed: str) -> bool:
    return re.fullmatch(re.escape(shown.strip()).replace(r"\.\.\.", "(?s:.*?)"), printed.strip()) is not None


def test_every_example_does_what_it_shows(service: Service, tmp_path: Path) -> None:
    for name in ("README.rst", "simple_client.py"):
        (tmp_path / name).symlink_to(README.parent / name)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    assert len(examples()) > 10
    for command, shown in examples():
        here = command.replace(f":{Settings().server.port}", f":{service.port}")
        environment = {**os.environ, "SFSS_SERVER_PORT": str(service.port), "LC_ALL": "C.UTF-8"}
        if "simple_client.py" in here:
            here += f" --port {service.port}"
        ran = subprocess.run(["bash", "-c", here], cwd=tmp_path, env=environment, capture_output=True, text=True,
                             timeout=60)  # fmt: skip
        assert ran.returncode == 0, (command, ran.stdout, ran.stderr)
        assert matches(shown, ran.stdout.replace("\r", "")), (command, shown, ran.stdout)
        assert '"status": 5' not in ran.stdout


def test_the_two_commands_are_the_makefile_s() -> None:
    makefile = (README.parent / "Makefile").read_text()
    assert "\nrun:" in makefile
    assert "\ntest:" in makefile


@pytest.mark.parametrize("link", re.findall(r"`[^`]*<((?!http)[^>]+)>`_", README.read_text("utf-8")))
def test_what_the_readme_points_to_is_there(link: str) -> None:
    assert (README.parent / link).exists()
