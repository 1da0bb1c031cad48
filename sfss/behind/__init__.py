"""Write-behind: files that a short-term store (Redis) takes first, and that workers move to the nodes.

::

    front:   files --record--> pending.py --one script--> Redis: record and task
    worker:  worker.py <--task-- Redis; landing.py --record, as the policy wants it--> nodes

``front.py``    which paths have a short-term store; what ``files.py`` sees of it all
``pending.py``  one path: the record that waits, before that which the nodes have
``listing.py``  lists: what waits, merged into what the nodes tell
``store.py``    the Redis side; the only one here that knows redis-py. ``scripts.py``: what is done there in one step
``states.py``   what a store says
``landing.py``  a record that was acknowledged, onto the nodes, in its version
``worker.py``   takes tasks, lands them, tries again, gives up
"""
