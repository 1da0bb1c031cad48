"""Which nodes keep a key, and how several nodes act as one store. Sees ``backends`` only through their contract."""
