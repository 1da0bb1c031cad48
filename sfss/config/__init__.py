"""Settings: a TOML file, the environment and the command line become frozen, typed objects, or a ConfigError.

Nothing is built here and nothing is read at import. From the ground up::

    values       what a setting may be, and how it is written
    sections     the sections and their defaults           rules: those that say what holds for paths
    settings     all of them together
    wording      what is wrong, in words                   checks: what no key can tell by itself
    loading      where they are read

Others import from here. ``conf/sfss.toml`` explains each key and its consequence.
"""

from sfss.config.checks import check_together
from sfss.config.loading import decode, encode, fields_of, load, namespace
from sfss.config.rules import NAMESPACE_NAME, PAGES, SPREAD, Namespace, Policy, Rules
from sfss.config.sections import (
    RIGHTS,
    Access,
    CatalogueSettings,
    Dashboard,
    Embedded,
    Ids,
    Json,
    Limits,
    Log,
    Namespaces,
    Post,
    Registration,
    Repair,
    Server,
    Storage,
    WriteBehindSettings,
)
from sfss.config.settings import NODE_LISTS, RELOADED, SECRETS, Settings, as_dict
from sfss.config.values import (
    GIB,
    KIB,
    LARGEST_FILE,
    LARGEST_JSON,
    LARGEST_RECORD,
    MIB,
    MOST_WORKERS,
    SMALLEST_RECORD,
    TIB,
    Network,
    Size,
    WorkerCount,
    is_loopback,
    parse_network,
    parse_size,
    parse_workers,
)

__all__ = [
    "GIB", "KIB", "LARGEST_FILE", "LARGEST_JSON", "LARGEST_RECORD", "MIB", "MOST_WORKERS", "NAMESPACE_NAME",
    "NODE_LISTS", "PAGES",
    "RELOADED", "RIGHTS", "SECRETS", "SMALLEST_RECORD", "SPREAD", "TIB", "Access", "CatalogueSettings", "Dashboard",
    "Embedded", "Ids", "Json", "Limits", "Log", "Namespace", "Namespaces", "Network", "Policy", "Post", "Registration",
    "Repair", "Rules", "Server", "Settings", "Size", "Storage", "WorkerCount", "WriteBehindSettings", "as_dict",
    "check_together", "decode", "encode", "fields_of", "is_loopback", "load", "namespace", "parse_network",
    "parse_size", "parse_workers",
]  # fmt: skip
