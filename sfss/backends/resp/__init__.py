"""What ``redis.py`` is made of: the protocol, its URLs, what a server tells of itself and refuses, and clusters."""
