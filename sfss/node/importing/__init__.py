"""Moving in: ``sfss node import``.

``transfer`` is all of it. ``kinds`` finds out what a source is, ``memcached`` and ``beansdb`` list and read it;
``target`` is the node that is written to. They speak through a ``peer``.
"""
