"""sfss: a small-file service over storage nodes that speak memcached's protocol."""

__version__ = "0.1.0"
