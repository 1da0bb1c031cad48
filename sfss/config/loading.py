"""Settings are read: from a TOML file, the environment and the command line, or from another process of this program.

The order, first wins: command line, ``SFSS_SECTION_KEY`` in the environment, the file, the default. Policies and
namespaces stand in the file only; the latter may be made through the API, too, and come as JSON.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_type_hints

import msgspec

from sfss.addresses import hidden
from sfss.config.checks import check_together
from sfss.config.rules import Namespace
from sfss.config.settings import DEFAULTS, LISTS, NO_SETTINGS, SECTIONS, Settings, as_dict
from sfss.config.values import Size, WorkerCount, is_loopback, parse_size, parse_workers
from sfss.config.wording import explain, nearest
from sfss.errors import ConfigError


def load(
    file: str | None = None,
    environment: Mapping[str, str] | None = None,
    overrides: Mapping[str, object] | None = None,
    *,
    serves: bool = False,
    defaults: Mapping[str, object] | None = None,
) -> Settings:
    """Settings from a TOML ``file``, an ``environment`` and ``overrides`` by section, the later ones winning.

    ``defaults`` take the place of those that are written here.

    ``serves``: they are to serve by, and so must say who may come in, unless only this machine can. Raises ConfigError,
    which names the key and says what it may be.
    """
    merged: dict[str, Any] = {}
    for source in (defaults or {}, _read(file) if file else {}, _from_environment(environment or {}), overrides or {}):
        for section, keys in source.items():
            if section in LISTS:
                if not isinstance(keys, list | tuple):
                    raise ConfigError(
                        f"{section}: write each as a section of a list, [[{section}]], with its keys below"
                    )
                merged[section] = keys
                continue
            if section not in SECTIONS:
                raise ConfigError(f"{section} is no setting of sfss{nearest(section)}")
            if not isinstance(keys, Mapping):
                raise ConfigError(f"{section}: write it as a section, [{section}], with its keys below")
            merged.setdefault(section, {}).update(keys)
    _read_access(merged.get("log", {}))
    try:
        settings = msgspec.convert(merged, Settings, strict=False, dec_hook=decode_value)
    except msgspec.ValidationError as error:
        raise ConfigError(explain(str(error), merged)) from None
    check_together(settings)
    others = not is_loopback(settings.server.host) or settings.server.trusted_proxies
    if serves and others and "anonymous" not in merged.get("access", {}):
        where = f"server.trusted_proxies: {', '.join(settings.server.trusted_proxies)}"
        if not is_loopback(settings.server.host):
            where = f"server.host: {settings.server.host}"
        raise ConfigError(
            f"{where} lets others in, and nothing says what they may: write"
            ' access.anonymous = [] and make keys (sfss key create), or access.anonymous = ["read", "write"] to let'
            " everybody read and write (in the environment SFSS_ACCESS_ANONYMOUS=, or =read,write)"
        )
    return settings


def _read_access(log: dict[str, Any]) -> None:
    """Take ``log.access`` for true or false where that is written as a text, as the environment has it."""
    given = str(log.get("access")).lower()
    if given in ("true", "false"):
        log["access"] = given == "true"


def _read(file: str) -> dict[str, Any]:
    try:
        return tomllib.loads(Path(file).read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"the configuration {file} can't be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the configuration {file} is not TOML: {error}") from None


def _from_environment(environment: Mapping[str, str]) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = {}
    sections = get_type_hints(Settings)
    for variable, text in environment.items():
        prefix, _, rest = variable.partition("_")
        section, key = _parted(rest.lower())
        if prefix != "SFSS" or variable in NO_SETTINGS or _is_kubernetes_own(variable, text):
            continue
        if section in LISTS:
            raise ConfigError(
                f"{variable} in the environment: {LISTS[section]} can't be set there; write [[{section}]] in a file,"
                " and name that with --config or SFSS_CONFIG"
            )
        if section not in SECTIONS or key not in sections[section].__struct_fields__:
            raise ConfigError(f"{variable} in the environment is no setting of sfss{nearest(f'{section}.{key}')}")
        listed = [word for word in re.split(r"[,\s]+", text) if word]
        found.setdefault(section, {})[key] = listed if isinstance(as_dict(DEFAULTS)[section][key], tuple) else text
    return found


def _parted(name: str) -> tuple[str, str]:
    """``server_port`` as section and key; some sections have two words."""
    for section in SECTIONS:
        if "_" in section and name.startswith(f"{section}_"):
            return section, name.removeprefix(f"{section}_")
    section, _, key = name.partition("_")
    return section, key


def _is_kubernetes_own(variable: str, text: str) -> bool:
    """Kubernetes tells every container of a service named ``sfss`` in variables of these names."""
    if re.fullmatch(r"SFSS_SERVICE_HOST|SFSS_SERVICE_PORT(_\w+)?|SFSS_PORT_\d+_\w+", variable):
        return True
    return variable == "SFSS_PORT" and "://" in text


def encode(settings: Settings) -> bytes:
    """Settings in one line, for another process of this program."""
    return msgspec.json.encode(settings, enc_hook=int)  # of Size and WorkerCount


def decode(line: bytes) -> Settings:
    """What ``encode`` has made."""
    return msgspec.json.decode(line, type=Settings, dec_hook=decode_value)


def namespace(fields: Mapping[str, object]) -> Namespace:
    """A namespace of its fields, as JSON has them. Raises ConfigError, which names the field."""
    try:
        made = msgspec.convert(fields, Namespace, dec_hook=decode_value)
    except msgspec.ValidationError as error:
        raise ConfigError(
            explain(
                f"{error} - at `$.namespace[0]`"
                if " - at " not in str(error)
                else str(error).replace("`$", "`$.namespace[0]"),
                {"namespace": [fields]},
            )
        ) from None
    made.check()
    return made


def fields_of(made: Namespace) -> dict[str, Any]:
    """The fields of a namespace that say something, as JSON has them: what ``namespace`` takes. For anybody's eyes."""
    fields = msgspec.to_builtins(made, enc_hook=int)
    if made.write_behind:
        fields["write_behind"] = hidden(made.write_behind)
    return {key: value for key, value in fields.items() if value is not None}


def decode_value(type_: type, given: object) -> object:
    if type_ is Size:
        if isinstance(given, int) and not isinstance(given, bool) and given >= 0:
            return Size(given)
        return parse_size(str(given))
    if type_ is WorkerCount:
        return parse_workers(str(given))
    raise NotImplementedError(type_)
