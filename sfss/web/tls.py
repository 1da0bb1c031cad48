"""TLS, of a certificate and a key that the settings name."""

from __future__ import annotations

import ssl

from sfss.config import Settings
from sfss.errors import ConfigError


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """The TLS side of the settings; None for plain HTTP. Raises ConfigError."""
    certificate, key = settings.server.tls_certificate, settings.server.tls_key
    if not certificate:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key, password="")  # never ask at the terminal for a key's passphrase
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"server.tls_certificate {certificate} and server.tls_key {key} can't be used: {error}"
        ) from None
    return context
