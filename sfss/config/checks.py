"""What no single key can tell, or not in words: whether settings make sense together."""

from __future__ import annotations

import re

from sfss import paths
from sfss.addresses import Address, parse_address
from sfss.config.rules import Namespace, Policy
from sfss.config.sections import RIGHTS
from sfss.config.settings import Settings
from sfss.config.values import LARGEST_FILE, LARGEST_JSON, LARGEST_RECORD, MIB, SMALLEST_RECORD, is_loopback
from sfss.config.wording import default
from sfss.errors import BadPath, ConfigError


def check_together(settings: Settings, *, nodes: int | None = None) -> None:
    """What no single key can tell, or not in words. Raises ConfigError.

    ``nodes``: how many there are, if that is known better than by the settings.
    """
    for name, text in (("server.host", settings.server.host), ("embedded.data", settings.embedded.data)):
        if not text:
            raise ConfigError(f"{name}: it is empty; leave it out for {default(name)}")
    if bool(settings.server.tls_certificate) != bool(settings.server.tls_key):
        raise ConfigError("server.tls_certificate and server.tls_key go together: give both, or neither")
    try:
        _ = settings.trusted_proxies
    except ValueError as error:
        raise ConfigError(f"server.trusted_proxies: {error}") from None
    if settings.embedded.durability not in ("fsync", "os"):
        raise ConfigError(f'embedded.durability: \'{settings.embedded.durability}\' is neither "fsync" nor "os"')
    if settings.embedded.first_port + settings.embedded.nodes > 65536:
        raise ConfigError("embedded.first_port: the embedded nodes' ports would go beyond 65535")
    if settings.catalogue.url and not re.match(r"sqlite:///.|postgres(ql)?://.", settings.catalogue.url):
        raise ConfigError(  # which may hold a password, and isn't shown
            'catalogue.url: write "sqlite:///FILE" or "postgresql://USER:PASSWORD@HOST/DATABASE", or "" for none'
        )
    try:
        paths.check(f"{settings.ids.folder}/x")
    except BadPath as error:
        raise ConfigError(f"ids.folder: no path begins so: {error}") from None
    if settings.post.enabled and settings.namespaces.required:
        raise ConfigError(
            "post.enabled: every path is a file then, and namespaces.required lets only those in a namespace be some:"
            " set one of them"
        )
    _check_json(settings)
    _check_registration(settings)
    _check_sizes(settings)
    _check_nodes(settings, nodes)
    _check_access(settings)
    _check_write_behind(settings)


def _check_json(settings: Settings) -> None:
    face = settings.json
    if not face.prefix:
        return
    try:
        paths.check(f"{face.prefix}x/x")
    except BadPath as error:
        raise ConfigError(f"json.prefix: no path begins so: {error}") from None
    if not face.prefix.endswith("/"):
        raise ConfigError(f"json.prefix: '{face.prefix}' is no folder: write '{face.prefix}/'")
    if not 1 <= face.max_file_size <= LARGEST_JSON:
        raise ConfigError(
            f"json.max_file_size: {face.max_file_size} bytes; 1 byte to {LARGEST_JSON // MIB}MiB are possible, for such"
            " a file is in memory whole: larger ones can be stored by PUT /file"
        )


def _check_registration(settings: Settings) -> None:
    registration, server = settings.registration, settings.server
    if not registration.enabled or registration.secret:
        return
    if not is_loopback(server.host) or server.trusted_proxies:
        where = f"for others, by {', '.join(server.trusted_proxies)}" if server.trusted_proxies else f"on {server.host}"
        raise ConfigError(
            f"registration.secret: it is empty, and sfss answers {where}: whoever reaches that could have files put on"
            " a node of his. Set one, and give it to the nodes (SFSS_NODE_KEY)"
        )


def _check_sizes(settings: Settings) -> None:
    limits = settings.limits
    for rules in settings.rules:
        if rules.max_file_size > LARGEST_FILE:
            raise ConfigError(f"{rules.setting}: {rules.max_file_size} bytes; at most 1TiB are possible")
    if not SMALLEST_RECORD <= limits.record_size <= LARGEST_RECORD:
        raise ConfigError(f"limits.record_size: {limits.record_size} bytes; 64KiB to 64MiB are possible")
    if limits.transfer_memory < MIB:
        raise ConfigError(f"limits.transfer_memory: {limits.transfer_memory} bytes; 1MiB at least is needed")


def _check_nodes(settings: Settings, nodes: int | None) -> None:
    lists: dict[str, tuple[Address, ...]] = {}
    for name in ("nodes", "joining", "leaving"):
        try:
            lists[name] = getattr(settings, name)
        except ValueError as error:
            raise ConfigError(f"storage.{name}: {error}") from None
    count = len(lists["nodes"]) + len(lists["joining"]) if nodes is None else nodes
    there = f"and there are {count}" + (" when those of storage.leaving are gone" if lists["leaving"] else "")
    _check_copies(settings, count, there)
    _check_policies(settings, count, there)
    every = [(name, node) for name, nodes in lists.items() for node in nodes]
    # The ring leaves memcached's own port out of a name, as libmemcached does.
    for told in (lambda node: node.name.removesuffix(":11211"), str):
        seen: dict[str, str] = {}
        for name, node in every:
            if (text := told(node)) in seen:
                where = f"storage.{name}: '{text}' stands there twice"
                raise ConfigError(
                    where
                    if seen[text] == name
                    else f"storage.{name}: '{text}' is in storage.{seen[text]} too; a node"
                    " joins, stays or leaves: write it in one of the lists"
                )
            seen[text] = name


def _check_copies(settings: Settings, nodes: int, there: str) -> None:
    storage = settings.storage
    for name, quorum in (("write_quorum", storage.write_quorum), ("read_quorum", storage.read_quorum)):
        if quorum > storage.copies:
            raise ConfigError(f"storage.{name}: {quorum} of {storage.copies} copies can't be; raise storage.copies")
    if storage.copies > nodes:
        raise ConfigError(f"storage.copies: {storage.copies} copies need as many nodes, {there}")


def _check_policies(settings: Settings, nodes: int, there: str) -> None:
    seen: dict[str, Policy | Namespace] = {}
    every: list[Policy | Namespace] = [*settings.namespace, *settings.policy]
    for policy in every:
        if isinstance(policy, Namespace):
            policy.check()
        try:
            paths.check(f"{policy.prefix}x")
        except BadPath as error:
            raise ConfigError(f"prefix of {policy.words}: no path begins so: {error}") from None
        if policy.prefix in seen:
            where = "one [[policy]]" if isinstance(seen[policy.prefix], Policy) else "the one [[namespace]]"
            raise ConfigError(f"{policy.words} stands there twice: write all of it in {where}")
        seen[policy.prefix] = policy
        rules = settings.by_prefix[policy.prefix]
        for name, quorum in (("write_quorum", rules.write_quorum), ("read_quorum", rules.read_quorum)):
            if quorum > rules.copies:
                raise ConfigError(
                    f"{name} of {policy.words}: {quorum} of {rules.copies} copies can't be; raise its copies"
                )
        for name, number in (("copies", rules.copies), ("pieces", rules.pieces)):
            if number > nodes:
                raise ConfigError(f"{name} of {policy.words}: {number} {name} need as many nodes, {there}")


def _check_access(settings: Settings) -> None:
    access = settings.access
    given = [("access.anonymous", access.anonymous)]
    given += [(f"anonymous of {policy.words}", policy.anonymous or ()) for policy in settings.policy]
    for name, rights in given:
        for right in rights:
            if right not in RIGHTS:
                raise ConfigError(
                    f"{name}: '{right}' is no right that everybody can have: there are {', '.join(RIGHTS)}"
                )
    for name in ("allow", "deny"):
        try:
            getattr(settings, name)
        except ValueError as error:
            raise ConfigError(f"access.{name}: {error}") from None
    for number, secret in enumerate(access.signing_secrets):
        if re.fullmatch(r"[!-+\--~]{16,}", secret) is None:  # no comma and no blank, which part them in the environment
            raise ConfigError(
                f"access.signing_secrets[{number}]: a secret has 16 characters at least, visible ASCII without commas:"
                " openssl rand -hex 32 makes one"
            )
    for name in ("key", "address"):
        if getattr(access, f"{name}_burst") and not getattr(access, f"{name}_rate"):
            raise ConfigError(f"access.{name}_burst: it goes with access.{name}_rate, which isn't set")


def _check_write_behind(settings: Settings) -> None:
    nodes = {str(address) for address in (*settings.nodes, *settings.joining, *settings.leaving)}
    every: list[Policy | Namespace] = [*settings.namespace, *settings.policy]
    for policy in every:
        if not policy.write_behind:
            continue
        where = f"write_behind of {policy.words}"
        try:
            address = parse_address(policy.write_behind)
        except ValueError as error:
            raise ConfigError(f"{where}: {error}") from None
        if address.scheme not in ("redis", "rediss") or address.url != policy.write_behind:
            raise ConfigError(f'{where}: write "redis://host:port/db" (rediss:// over TLS), or "" for none')
        if str(address) in nodes:
            raise ConfigError(f"{where}: {address} is a node, too: give the short-term store a database of its own")
