"""How a Redis is reached: what a ``redis://`` or ``rediss://`` URL says. redis-py knows what its options mean."""

from __future__ import annotations

import re
import ssl
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from redis.asyncio.connection import SSLConnection, parse_url
from redis.exceptions import RedisError

from sfss.addresses import Address, hidden
from sfss.errors import ConfigError

# Those of redis-py's that say who is to be trusted and who asks; how long to wait, and how often, is [storage]'s.
OPTIONS = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile", "ssl_password", "ssl_cert_reqs",
           "ssl_check_hostname", "ssl_min_version", "ssl_ciphers")  # fmt: skip


class Access(NamedTuple):
    """All that a connection is made with."""

    host: str
    port: int
    database: int
    login: tuple[bytes, ...]  # the words of AUTH; none: nobody asks
    tls: ssl.SSLContext | None


def access(address: Address, setting: str = "storage.nodes") -> Access:
    """What the URL of an address, which stands in that setting, says. Raises ConfigError, without the password."""
    said: dict[str, Any] = {}
    try:
        said = dict(parse_url(address.url))
        path = urlsplit(address.url).path
        if not re.fullmatch(r"/?|/\d{1,5}", path):
            raise ValueError(f"'{path}' is no database: write its number, as in redis://host:6379/0")
        for option in said:
            if option not in (*OPTIONS, "username", "password", "host", "port", "db", "connection_class"):
                raise ValueError(f"there is no option {option} here: there are {', '.join(OPTIONS)}")
        if re.search(r"[?&](db|host|port|username|password)=", address.url):
            raise ValueError("host, port, user, password and database stand before the question mark")
        options = {option: said[option] for option in OPTIONS if option in said}
        if options and address.scheme != "rediss":
            raise ValueError(f"{', '.join(options)}: they are for rediss://, which is over TLS")
        # Said, for what redis-py does where nothing is said has changed.
        verified = {
            "ssl_check_hostname": options.get("ssl_cert_reqs") != "none",
            "ssl_cert_reqs": "required",
            **options,
        }
        tls = SSLConnection(**verified).ssl_context.get() if address.scheme == "rediss" else None
    except (ValueError, TypeError, OSError, RedisError) as error:  # OSError: of a file with certificates
        raise ConfigError(f"{setting}: {hidden(address.url)}: {error}") from None
    user, password = said.get("username"), said.get("password")
    if user and password is None:
        raise ConfigError(f"{setting}: {hidden(address.url)}: a user has a password: redis://USER:PASSWORD@HOST")
    login = tuple(word.encode() for word in (user, password) if word)
    return Access(address.host, address.port, said.get("db", 0), login, tls)
