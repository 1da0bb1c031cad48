"""What is wrong with a setting, in words: its name as people write it, and the one that may have been meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any

from sfss.config.rules import Namespace, Policy
from sfss.config.settings import DEFAULTS, Settings, as_dict

_NUMBER = r"\[(\d+)\]"


def explain(message: str, given: Mapping[str, Any]) -> str:
    """msgspec's 'Expected `int`, got `str` - at `$.server.port`', with the setting's name in front."""
    what, _, where = message.partition(" - at ")
    key = where.strip("`").removeprefix("$").lstrip(".")
    if unknown := re.search(r"unknown field `(.+?)`", what):
        name = f"{key}.{unknown[1]}".lstrip(".")
        return f"{_worded(name, given)} is no setting of sfss{nearest(re.sub(_NUMBER, '', name))}"
    if missing := re.search(r"missing required field `(.+?)`", what):
        key, what = f"{key}.{missing[1]}", 'it is missing; write e.g. prefix = "images/", or "" for all paths'
        if missing[1] == "name":
            what = 'it is missing; write e.g. name = "photos"'
    if "matching regex" in what:
        what = "it holds a control character: leave that out"
    return f"{_worded(key, given) or 'the configuration'}: {what[0].lower()}{what[1:]}"


def _worded(key: str, given: Mapping[str, Any]) -> str:
    """``policy[0].copies`` as ``copies of the policy for 'images/'``; other keys as they are."""
    match = re.fullmatch(rf"(policy|namespace){_NUMBER}\.?(.*)", key)
    if not match:
        return key
    section = given[match[1]][int(match[2])]
    called = section.get("prefix" if match[1] == "policy" else "name") if isinstance(section, Mapping) else None
    which = f"{match[1]} number {int(match[2]) + 1}"
    if isinstance(called, str):
        which = Policy(called).words if match[1] == "policy" else Namespace(called).words
    return f"{match[3]} of {which}" if match[3] else which


def default(name: str) -> object:
    section, _, key = name.partition(".")
    return as_dict(DEFAULTS)[section][key]


def nearest(name: str) -> str:
    every = [f"{section}.{key}" for section, keys in as_dict(DEFAULTS).items() for key in keys]
    every += [f"policy.{key}" for key in Policy.__struct_fields__]
    every += [f"namespace.{key}" for key in Namespace.__struct_fields__]
    near = [key for key in every if key.endswith(f".{name}")]  # its section was left out
    near = near or difflib.get_close_matches(name, [*every, *Settings.__struct_fields__], 1)
    return f": did you mean {near[0]}?" if near else f": there are {', '.join(every)}"
