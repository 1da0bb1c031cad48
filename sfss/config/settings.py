"""All settings together, what follows from them, and which of them are secret or can change while sfss serves."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from sfss.addresses import Address, parse_address
from sfss.config import sections
from sfss.config.rules import SPREAD, Namespace, Policy, Rules
from sfss.config.values import Network, parse_network


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that can be set."""

    server: sections.Server = sections.Server()
    storage: sections.Storage = sections.Storage()
    embedded: sections.Embedded = sections.Embedded()
    repair: sections.Repair = sections.Repair()
    registration: sections.Registration = sections.Registration()
    limits: sections.Limits = sections.Limits()
    access: sections.Access = sections.Access()
    catalogue: sections.CatalogueSettings = sections.CatalogueSettings()
    write_behind: sections.WriteBehindSettings = sections.WriteBehindSettings()
    dashboard: sections.Dashboard = sections.Dashboard()
    namespaces: sections.Namespaces = sections.Namespaces()
    ids: sections.Ids = sections.Ids()
    post: sections.Post = sections.Post()
    json: sections.Json = sections.Json()
    log: sections.Log = sections.Log()
    policy: tuple[Policy, ...] = ()
    namespace: tuple[Namespace, ...] = ()

    @property
    def general(self) -> Rules:
        """What holds where no policy does."""
        storage, limits = self.storage, self.limits
        return Rules(
            pieces=1,
            spread=SPREAD,
            copies=storage.copies,
            write_quorum=storage.write_quorum,
            read_quorum=storage.read_quorum,
            max_file_size=limits.max_file_size,
            setting="limits.max_file_size",
            write_once=self.post.enabled,
        )

    @property
    def by_prefix(self) -> Mapping[str, Rules]:
        """What holds under each namespace's and policy's prefix; what a policy leaves out is as in its namespace."""
        found = {namespace.prefix: namespace.over(self.general) for namespace in self.namespace}

        def around(prefix: str) -> Rules:
            name, slash, _ = prefix.partition("/")
            return found.get(name + slash, self.general) if slash else self.general

        return found | {policy.prefix: policy.over(around(policy.prefix)) for policy in self.policy}

    @property
    def anonymous_by_prefix(self) -> Mapping[str, tuple[str, ...]]:
        """What everybody may under each namespace's and policy's prefix; what one leaves out is as around it."""
        general = self.access.anonymous
        namespaces = {each.prefix: general if each.anonymous is None else each.anonymous for each in self.namespace}

        def around(prefix: str) -> tuple[str, ...]:
            name, slash, _ = prefix.partition("/")
            return namespaces.get(name + slash, general) if slash else general

        policies = {
            each.prefix: around(each.prefix) if each.anonymous is None else each.anonymous for each in self.policy
        }
        return {**namespaces, **policies}

    @property
    def allow(self) -> tuple[Network, ...]:
        """Those who alone may come in; none: all may."""
        return tuple(map(parse_network, self.access.allow))

    @property
    def deny(self) -> tuple[Network, ...]:
        """Those who may not."""
        return tuple(map(parse_network, self.access.deny))

    @property
    def rules(self) -> Collection[Rules]:
        """All that hold anywhere."""
        return self.general, *self.by_prefix.values()

    @property
    def short_term(self) -> Collection[str]:
        """The URLs of all short-term stores, in order."""
        return sorted({rules.write_behind for rules in self.rules} - {""})

    @property
    def trusted_proxies(self) -> tuple[Network, ...]:
        """Those who may say for whom they ask."""
        return tuple(map(parse_network, self.server.trusted_proxies))

    @property
    def nodes(self) -> tuple[Address, ...]:
        """The nodes that files lie on: the named ones, or the embedded."""
        return tuple(map(parse_address, self.storage.nodes)) or self.embedded.addresses()

    @property
    def moving(self) -> bool:
        """Whether nodes join or leave."""
        return bool(self.storage.joining or self.storage.leaving)

    @property
    def joining(self) -> tuple[Address, ...]:
        """The nodes that files are being moved to."""
        return tuple(map(parse_address, self.storage.joining))

    @property
    def leaving(self) -> tuple[Address, ...]:
        """The nodes that files are being moved away from."""
        return tuple(map(parse_address, self.storage.leaving))


DEFAULTS = Settings()

# What a front that is sent SIGHUP takes over from its settings, besides the policies; all else takes a restart.
RELOADED = frozenset(
    f"storage.{key}" for key in ("nodes", "joining", "leaving", "copies", "write_quorum", "read_quorum")
) | frozenset(f"access.{key}" for key in sections.Access.__struct_fields__)
SECRETS = frozenset({"access.signing_secrets", "registration.secret"})  # not to be shown
NODE_LISTS = frozenset(f"storage.{key}" for key in ("nodes", "joining", "leaving"))  # of URLs that may hold passwords
# The file with them, and what a client shows (sfss/client), and a node that registers.
NO_SETTINGS = ("SFSS_CONFIG", "SFSS_KEY", "SFSS_NODE_KEY")
LISTS = {"policy": "policies", "namespace": "namespaces"}  # sections of which there may be several
SECTIONS = [name for name in Settings.__struct_fields__ if name not in LISTS]


def as_dict(settings: Settings) -> dict[str, dict[str, Any]]:
    """Every section with its keys and their values; policies and namespaces, which are lists, are none."""
    return {section: msgspec.structs.asdict(getattr(settings, section)) for section in SECTIONS}
