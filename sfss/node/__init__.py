"""The storage node of sfss: a server of memcached's protocol that forgets nothing.

``server`` holds connections, ``commands`` says what each command does, ``scan`` walks all items, ``store`` keeps items
in RocksDB, ``stats`` counts. Nothing here knows of the front half; the two share ``errors``, ``config``, ``paths``,
``record``, ``memcache`` and ``scan`` alone.
"""
