"""What holds for a path: the rules, and the sections that make them, ``[[policy]]`` and ``[[namespace]]``."""

from __future__ import annotations

import re
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta

from sfss.config.values import Copies, Size, Text
from sfss.errors import ConfigError

SPREAD = 8  # nodes that share a large file where no policy says how many; all of them, where there are fewer


class Rules(NamedTuple):
    """What holds for a path."""

    pieces: int  # that every file is cut in
    spread: int  # nodes over which one is spread that is larger than a record
    copies: int
    write_quorum: int
    read_quorum: int
    max_file_size: int
    setting: str  # what to call the one that sets max_file_size
    write_once: bool = False  # a file that is there is neither replaced nor deleted
    counted: str = ""  # the namespace whose quota it counts for
    write_behind: str = ""  # the URL of the short-term store that takes it first; with its password


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[[policy]]``: what holds for the paths that begin with ``prefix``, and with no longer one of another policy.

    What is None is as for all paths; but no quorum is larger than there are copies.
    """

    prefix: str
    pieces: Annotated[int, Meta(ge=1, le=64)] | None = None
    copies: Copies | None = None
    write_quorum: Copies | None = None
    read_quorum: Copies | None = None
    max_file_size: Size | None = None
    anonymous: tuple[str, ...] | None = None
    write_once: bool | None = None
    write_behind: Text | None = None

    @property
    def words(self) -> str:
        """What to call it."""
        return f"the policy for '{self.prefix}'"

    def over(self, general: Rules) -> Rules:
        """The rules that it makes of those for all paths."""
        copies = self.copies or general.copies
        rules = general._replace(
            pieces=self.pieces or general.pieces,
            spread=self.pieces or general.spread,
            copies=copies,
            write_quorum=self.write_quorum or min(general.write_quorum, copies),
            read_quorum=self.read_quorum or min(general.read_quorum, copies),
            write_once=general.write_once if self.write_once is None else self.write_once,
            write_behind=general.write_behind if self.write_behind is None else self.write_behind,
        )
        if self.max_file_size is None:
            return rules
        return rules._replace(max_file_size=self.max_file_size, setting=f"max_file_size of {self.words}")


# First segments of URLs that are pages, or may come to be some: no namespace can have them, however they are written.
PAGES = frozenset(
    ("file", "files", "uploads", "status", "livez", "readyz", "health", "metrics", "namespaces", "keys", "nodes",
     "dashboard", "openapi.json", "static", "search", "catalogue", "docs", "api", "s3", "favicon.ico", "robots.txt",
     "f"),  # what conf/nginx.conf makes of /f/P
)  # fmt: skip
NAMESPACE_NAME = r"[A-Za-z0-9_~-][A-Za-z0-9._~-]{0,62}"


class Namespace(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[[namespace]]``: a policy for all paths whose first segment is ``name``, and what only a namespace has.

    What is None is as for all paths. ``layout`` says what else must be given: raid0 ``pieces``, raid1 ``copies``.
    """

    name: str
    enabled: bool = True
    layout: Literal["plain", "raid0", "raid1"] = "plain"
    pieces: Annotated[int, Meta(ge=1, le=64)] | None = None
    copies: Copies | None = None
    write_quorum: Copies | None = None
    read_quorum: Copies | None = None
    quota: Size | None = None  # bytes of all its files
    quota_files: Annotated[int, Meta(ge=0, le=2**53)] | None = None
    max_file_size: Size | None = None
    write_once: bool = False
    anonymous: tuple[Literal["read", "write"], ...] | None = None  # what who has no key may do; None: as elsewhere
    write_behind: Text | None = None

    @property
    def prefix(self) -> str:
        """What its paths begin with."""
        return f"{self.name}/"

    @property
    def words(self) -> str:
        """What to call it."""
        return f"the namespace '{self.name}'"

    @property
    def is_counted(self) -> bool:
        """Whether it has a quota."""
        return self.quota is not None or self.quota_files is not None

    def over(self, general: Rules) -> Rules:
        """The rules that it makes of those for all paths."""
        pieces = 1 if self.layout == "raid1" else self.pieces  # a mirror of a file is all of it, on one node
        policy = Policy(
            self.prefix, pieces, self.copies, self.write_quorum, self.read_quorum, self.max_file_size,
            write_once=self.write_once, write_behind=self.write_behind,
        )  # fmt: skip
        rules = policy.over(general)._replace(counted=self.name if self.is_counted else "")
        return rules if self.max_file_size is None else rules._replace(setting=f"max_file_size of {self.words}")

    def check(self) -> None:
        """Raises ConfigError if it makes no sense by itself."""
        if not re.fullmatch(NAMESPACE_NAME, self.name):
            raise ConfigError(f"{self.words}: a name has 1 to 63 of A-Z a-z 0-9 . _ ~ -, and doesn't begin with a dot")
        if self.name.lower() in PAGES:
            raise ConfigError(f"{self.words}: /{self.name.lower()} is a page of sfss: choose another name")
        if (self.quota or 0) > 2**60:
            raise ConfigError(f"quota of {self.words}: {self.quota} bytes; at most 1048576TiB are possible")
        if self.layout == "raid0" and (self.pieces or 1) < 2:
            raise ConfigError(f"pieces of {self.words}: raid0 cuts files in equal pieces: say how many, 2 or more")
        if self.layout == "raid1" and (self.copies or 1) < 2:
            raise ConfigError(f"copies of {self.words}: raid1 mirrors files: say how many copies there are, 2 or more")
        if self.layout == "raid1" and (self.pieces or 1) > 1:
            raise ConfigError(
                f"pieces of {self.words}: raid1 doesn't cut files: leave it out, or take raid0 with copies"
            )
