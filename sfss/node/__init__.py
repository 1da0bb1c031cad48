"""The storage node of sfss: a server of memcached's protocol that forgets nothing.

From the wire down::

    server       settings, start and stop
    connection   one client's requests and replies      intake, gate: what may come in, and when
    commands     what each command does                 meta, changes, numbers, scan, replies, stats
    committer    syncs, shared by all that was written   reader: reads, shared by all that wait
    store        items, each change whole               memory, entries, engine (RocksDB)
    opening      nothing that was synced is missing     logs, manifest
    keeper       what the node does by itself           space: giving it back

and beside a running node ``maintenance`` (its commands), ``control``, ``backup``, ``verify``, ``look``, ``importing``.
Nothing here knows of the front half; the two share ``errors``, ``config``, ``paths``, ``record``, ``memcache`` and
``scan`` alone.
"""
