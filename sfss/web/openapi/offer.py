"""What of a front's settings the document depends on. Pure."""

from __future__ import annotations

from typing import NamedTuple

from sfss.config import RIGHTS, Settings


class Offer(NamedTuple):
    """What a front offers, and to whom. Everybody may see it: so it has switches and limits, and no names."""

    guarded: bool  # not everybody may do everything: keys are asked for
    anybody: frozenset[str]  # which of RIGHTS whoever shows no key has, somewhere
    all_open: bool  # whoever shows no key may read and write in general; and so see the nodes, and more
    signed: bool  # URLs can be signed
    rated: bool  # who asks too often is refused
    max_file_size: int  # bytes; of no path more
    once: bool  # there may be files that are written once
    namespaces: bool  # there may be some
    namespaces_made: bool  # ... and they can be made while it serves
    quotas: bool
    json: bool
    json_max: int  # bytes of a file that comes as JSON
    catalogue: bool
    root: bool  # files are at the URL's root, too
    nodes_register: bool
    nodes_secret: bool  # ... with a key of their own
    dashboard: bool
    write_behind: bool


def offer(settings: Settings, *, is_open: bool) -> Offer:
    """That of these settings, with all namespaces in them. ``is_open``: everybody may do everything."""
    namespaces, access = settings.namespaces, settings.access
    given = (access.anonymous, *settings.anonymous_by_prefix.values())
    return Offer(
        guarded=not is_open,
        anybody=frozenset(right for right in RIGHTS if any(right in may for may in given)),
        all_open=set(access.anonymous) >= set(RIGHTS),
        signed=bool(access.signing_secrets),
        rated=access.key_rate > 0 or access.address_rate > 0,
        max_file_size=int(max(rules.max_file_size for rules in settings.rules)),
        once=namespaces.api or any(rules.write_once for rules in settings.rules),
        namespaces=bool(settings.namespace) or namespaces.api or namespaces.required,
        namespaces_made=namespaces.api,
        quotas=namespaces.api or any(namespace.is_counted for namespace in settings.namespace),
        json=bool(settings.json.prefix),
        json_max=int(settings.json.max_file_size),
        catalogue=bool(settings.catalogue.url),
        root=settings.post.enabled,
        nodes_register=settings.registration.enabled,
        nodes_secret=bool(settings.registration.secret),
        dashboard=settings.dashboard.enabled,
        write_behind=bool(settings.short_term),
    )
