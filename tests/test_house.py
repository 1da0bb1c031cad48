"""The house: which module may see which. Read this to learn it; docs/ says why.

One request, one direction: web -> files -> cluster -> backends ==TCP==> node. Each floor knows only those below it, and
the modules of the ground floor, which the node shares. The table below is the law; what breaks it is named.
"""

from __future__ import annotations

import ast
import functools
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent

GROUND = ("sfss.errors", "sfss.addresses", "sfss.config", "sfss.prefixes", "sfss.policies", "sfss.namespaces",
          "sfss.bounds", "sfss.paths", "sfss.record", "sfss.manifest",
          "sfss.memcache", "sfss.scan", "sfss.listing", "sfss.spool", "sfss.told", "sfss.eventloop",
          "sfss.upload_state", "sfss.membership", "sfss.sqlfiles", "sfss.logs", "sfss.traffic")  # fmt: skip
ACCESS = ("sfss.access",)
UPLOADS = ("sfss.uploads", "sfss.upload_going", "sfss.upload_hash", "sfss.upload_hold", "sfss.upload_locks")


class Floor(NamedTuple):
    """What the modules under a name may import of sfss: those named, with all that lies under them."""

    rule: str
    may_import: tuple[str, ...]


# The longest name that fits a module holds for it.
FLOORS = {
    "sfss.errors": Floor("errors stands lowest and knows nobody", ()),
    **dict.fromkeys(GROUND[1:], Floor("the ground floor knows only itself", GROUND)),
    "sfss.backends": Floor("backends know the ground floor and themselves, no cluster", (*GROUND, "sfss.backends")),
    "sfss.cluster": Floor(
        "cluster knows backends by their contract only", (*GROUND, "sfss.cluster", "sfss.backends.base")
    ),
    "sfss.cluster.ring": Floor("the ring is pure", GROUND),
    "sfss.files": Floor(
        "files know the cluster, no backends and no HTTP",
        (*GROUND, "sfss.cluster", "sfss.file_needs", "sfss.stripes", "sfss.replaced", "sfss.quotas"),
    ),
    "sfss.file_needs": Floor(
        "what files need is said in words of the cluster's lists", (*GROUND, "sfss.cluster.listing")
    ),
    "sfss.replaced": Floor("what becomes of blocks is said by the cluster", (*GROUND, "sfss.cluster", "sfss.stripes")),
    "sfss.behind": Floor(
        "what waits is put on the cluster; files know it as a Behind only",
        (*GROUND, "sfss.cluster", "sfss.stripes", "sfss.replaced", "sfss.behind"),
    ),
    **dict.fromkeys(
        ("sfss.behind.scripts", "sfss.behind.states"), Floor("what is said of a short-term store is pure", ())
    ),
    "sfss.behind.store": Floor(
        "the short-term store knows no cluster", (*GROUND, "sfss.behind.scripts", "sfss.behind.states")
    ),
    "sfss.quotas": Floor("quotas count what the cluster lists", (*GROUND, "sfss.cluster.listing")),
    "sfss.stripes": Floor("stripes are arithmetic over the cluster", (*GROUND, "sfss.cluster")),
    **dict.fromkeys(
        UPLOADS,
        Floor(
            "uploads become files: they know those, and no HTTP",
            (*GROUND, "sfss.cluster", "sfss.stripes", "sfss.files", *UPLOADS),
        ),
    ),
    "sfss.access": Floor("access judges by what it is told: it knows the ground floor only", (*GROUND, *ACCESS)),
    "sfss.registry": Floor("the registry keeps documents on the cluster", (*GROUND, "sfss.cluster")),
    "sfss.catalogue": Floor(
        "the catalogue is what the files need of one, and looks at the cluster; who has none never imports it",
        (*GROUND, "sfss.cluster", "sfss.registry", "sfss.file_needs", "sfss.catalogue"),
    ),
    "sfss.mirrors": Floor("mirrors make rows of keys and namespaces", (*GROUND, *ACCESS)),
    "sfss.reindexing": Floor("the command of reindex is words about a catalogue", (*GROUND, "sfss.catalogue")),
    "sfss.standing": Floor("which namespaces hold is told by the registry", (*GROUND, "sfss.registry")),
    "sfss.namespace_changes": Floor(
        "changes of namespaces are those of a document of the registry", (*GROUND, "sfss.registry", "sfss.standing")
    ),
    "sfss.registration": Floor(
        "who takes nodes in knows them, and the cluster", (*GROUND, "sfss.cluster", "sfss.backends.base")
    ),
    "sfss.web": Floor(
        "web sees the files only, the uploads that become some, and the namespaces that they are in",
        (
            "sfss",
            "sfss.errors",
            "sfss.addresses",
            "sfss.config",
            "sfss.namespaces",
            "sfss.namespace_changes",
            "sfss.standing",
            "sfss.quotas",
            "sfss.record",
            "sfss.access",
            "sfss.files",
            "sfss.file_needs",
            "sfss.told",
            "sfss.traffic",
            "sfss.logs",
            "sfss.upload_state",
            "sfss.uploads",
            "sfss.registration",
            "sfss.web",
        ),
    ),
    "sfss.web.openapi": Floor(
        "the description of the HTTP face knows what each part takes",
        (
            "sfss.errors",
            "sfss.config",
            "sfss.paths",
            "sfss.membership",
            "sfss.upload_state",
            "sfss.registration",
            "sfss.namespace_changes",
            "sfss.access",
            "sfss.web",
        ),
    ),
    "sfss.web.app": Floor(
        "web/app.py puts the front together, from all of it",
        (
            "sfss",
            *GROUND,
            *ACCESS,
            "sfss.assembly",
            "sfss.backends",
            "sfss.behind",
            "sfss.cluster",
            "sfss.files",
            "sfss.stripes",
            "sfss.uploads",
            "sfss.registry",
            "sfss.catalogue",
            "sfss.mirrors",
            "sfss.quotas",
            "sfss.namespace_changes",
            "sfss.standing",
            "sfss.registration",
            "sfss.web",
        ),
    ),
    "sfss.node": Floor("the node and the front share the ground floor, nothing else", ("sfss", *GROUND, "sfss.node")),
    "sfss.supervisor": Floor("the supervisor starts nodes as processes: it imports neither end", GROUND),
    "sfss.stopping": Floor("signals know nobody", ()),
    "sfss.workers": Floor(
        "workers are started as processes, as nodes are; what they count is seen",
        (*GROUND, "sfss.access.shared_rates", "sfss.supervisor", "sfss.web.tally"),
    ),
    "sfss.assembly": Floor(
        "the assembly puts a cluster together: nodes, ring, copies; and what stands before it",
        (*GROUND, "sfss.backends", "sfss.behind", "sfss.cluster", "sfss.registry", "sfss.standing"),
    ),
    "sfss.service": Floor(
        "the service puts together who serves, and starts the rest",
        (
            "sfss",
            *GROUND,
            "sfss.assembly",
            "sfss.stopping",
            "sfss.supervisor",
            "sfss.workers",
            "sfss.web.app",
            "sfss.web.tls",
        ),
    ),
    "sfss.web.worker": Floor(
        "a worker serves as the service says", (*GROUND, "sfss.access.shared_rates", "sfss.stopping", "sfss.web")
    ),
    "sfss.web.tally": Floor("the tally is memory, and whoever counts or starts workers may see it", ("sfss.traffic",)),
    "sfss.healing": Floor(
        "the commands of repair are words about the cluster", (*GROUND, "sfss.cluster", "sfss.registry")
    ),
    "sfss.access_cli": Floor(
        "the commands of access are words about keys, which the registry has",
        (*GROUND, *ACCESS, "sfss.cluster", "sfss.registry"),
    ),
    "sfss.behind_service": Floor(
        "a service of workers is put together, as the one that serves",
        (
            *GROUND,
            "sfss.assembly",
            "sfss.behind",
            "sfss.cluster",
            "sfss.service",
            "sfss.standing",
            "sfss.stripes",
            "sfss.web.app",
        ),
    ),
    "sfss.behind_cli": Floor("the command of workers is words about them", (*GROUND, "sfss.behind", "sfss.stopping")),
    "sfss.options": Floor("options make settings", (*GROUND, "sfss.client.commands")),
    "sfss.asking": Floor("a service is asked where the settings say", (*GROUND, "sfss.options")),
    "sfss.config_cli": Floor(
        "the command that checks settings tries what it can of them",
        (*GROUND, "sfss.options", "sfss.assembly", "sfss.web.tls"),
    ),
    "sfss.client": Floor("clients run where no service does", ("sfss.errors", "sfss.client")),
    "sfss.namespace_cli": Floor("the commands that deal with namespaces are words about an answer", ()),
    "sfss.listing_cli": Floor("the commands that list are words about an answer", ()),
    "sfss.status_cli": Floor("the command that shows how all is", ("sfss.errors", "sfss.config", "sfss.logs")),
    "sfss.nodes_cli": Floor("the command that shows nodes is words about an answer", ()),
    "sfss.post": Floor("what is PostgreSQL's own knows the border to it", (*GROUND, "sfss.backends", "sfss.post")),
    "sfss.cli": Floor("the command line wires everything", ("sfss", "sfss.*")),
    "sfss.__main__": Floor("python -m sfss is the command line", ("sfss.cli",)),
    "sfss": Floor("sfss itself is its version", ()),
}

# Packages that only one place may know, so that another can take their place.
BORDERS = {
    "aiohttp": ("sfss.web", "sfss.client.api"),
    "yarl": ("sfss.web", "sfss.client.api"),
    "sqlalchemy": ("sfss.catalogue",),
    "aiosqlite": (),
    "asyncpg": ("sfss.backends.pg_connect",),
    "aiomcache": ("sfss.backends.statistics",),
    "redis": ("sfss.backends.resp", "sfss.behind.store"),
    "hiredis": ("sfss.backends.resp.wire",),
    "prometheus_client": ("sfss.web.metrics",),
    "rich": ("sfss.status_cli",),
    "python_multipart": ("sfss.web.forms", "sfss.web.disposition"),
    "rocksdict": ("sfss.node.engine", "sfss.node.store", "sfss.node.look"),
    "uhashring": ("sfss.cluster.ring",),
    "uvloop": ("sfss.eventloop",),
}

# What lives long, and who may make it.
LONG_LIVED = {
    "MemcachedNode",
    "RedisNode",
    "PostgresNode",
    "Cluster",
    "Files",
    "Uploads",
    "Registry",
    "Catalogue",
    "Guard",
    "Standing",
    "NamespaceChanges",
    "Quotas",
    "Members",
    "Growing",
    "WriteBehind",
    "Landing",
    "Worker",
    "ShortTerm",
    "Registrar",
    "View",
    "EmbeddedNodes",
    "Workers",
}
MAKERS = {"sfss.assembly", "sfss.behind_service", "sfss.service", "sfss.supervisor", "sfss.web.app"}


def _name(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {_name(file): file for file in sorted((ROOT / "sfss").rglob("*.py"))}


@functools.cache
def _tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text("utf-8"))


@functools.cache
def _imports(module: str) -> Sequence[tuple[int, str]]:
    """The line and name of each module that a module imports, at its top or within a function."""
    return list(_found_imports(module))


def _found_imports(module: str) -> Iterator[tuple[int, str]]:
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}, line {node.lineno}: write imports in full, from sfss.x import y"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield node.lineno, whole if whole in MODULES else str(node.module)


def _is_within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def _floor(module: str) -> Floor:
    fitting = [name for name in FLOORS if name == module or (name != "sfss" and _is_within(module, name))]
    assert fitting, f"{module} is new: give it a floor in {__file__}, and say what it may import"
    return FLOORS[max(fitting, key=len)]


def _allows(floor: Floor, name: str) -> bool:
    # "sfss" alone is the package's version, not all that lies in it.
    return any(name == "sfss" if able == "sfss" else _is_within(name, able.removesuffix(".*"))
               for able in floor.may_import)  # fmt: skip


def test_the_modules_are_found() -> None:
    assert {"sfss", "sfss.errors", "sfss.web.app", "sfss.node.server"} <= MODULES.keys()


@pytest.mark.parametrize("module", MODULES)
def test_each_floor_knows_only_those_below_it(module: str) -> None:
    floor = _floor(module)
    broken = [
        f"{MODULES[module].relative_to(ROOT)}, line {line}: imports {name}"
        for line, name in _imports(module)
        if _is_within(name, "sfss") and not _allows(floor, name)
    ]
    assert not broken, f"the rule '{floor.rule}' is broken by\n" + "\n".join(broken)


@pytest.mark.parametrize("package", BORDERS)
def test_a_foreign_package_is_known_in_one_place(package: str) -> None:
    broken = [
        f"{MODULES[module].relative_to(ROOT)}, line {line}: imports {name}"
        for module in MODULES
        if not any(_is_within(module, place) for place in BORDERS[package])
        for line, name in _imports(module)
        if _is_within(name, package)
    ]
    assert not broken, f"{package} belongs in {' and '.join(BORDERS[package])} only, but\n" + "\n".join(broken)


@pytest.mark.parametrize("module", sorted(MODULES.keys() - MAKERS))
def test_only_the_wiring_makes_what_lives_long(module: str) -> None:
    made = [
        f"{MODULES[module].relative_to(ROOT)}, line {node.lineno}: makes {name}"
        for node in ast.walk(_tree(module))
        if isinstance(node, ast.Call)
        for name in [getattr(node.func, "id", None) or getattr(node.func, "attr", None)]
        if name in LONG_LIVED
    ]
    assert not made, f"only {', '.join(sorted(MAKERS))} make {', '.join(sorted(LONG_LIVED))}, but\n" + "\n".join(made)


# Runs in a process of its own. A library may look at a file or ask for a thread's name; it may not leave anything.
_IMPORT_ALL = """
import asyncio, importlib, os, sys, threading

def held():
    sockets = [fd for fd in os.listdir("/proc/self/fd") if "socket" in os.path.realpath(f"/proc/self/fd/{fd}")]
    return sorted(sockets), len(os.listdir("/proc/self/task")), threading.active_count()

def watch(event, args):
    writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    writes = writes and args[0] != os.devnull
    if writes or event in watched:
        doing.append(f"{event} {args}")

watched = {"socket.bind", "socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.fork", "os.mkdir"}
before, doing = held(), []
sys.addaudithook(watch)
for module in sys.argv[1:]:
    importlib.import_module(module)
watched.clear()
assert not doing, doing
assert held() == before, (before, held())
assert os.listdir() == [], os.listdir()
"""


def test_importing_everything_does_nothing(tmp_path: Path) -> None:
    modules = [module for module in MODULES if module != "sfss.__main__"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _IMPORT_ALL, *modules],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_node_starts_without_any_of_the_front(tmp_path: Path) -> None:
    code = (
        "import sys, sfss.cli, sfss.node.server; "
        "print(*sorted(m for m in sys.modules if m.startswith(('sfss.web', 'sfss.backends', 'aiohttp'))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == ""
