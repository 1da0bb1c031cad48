"""What comes and goes as JSON: of the types that are decoded and encoded, where there are some. Pure.

Where an object's figures are many, and others for each kind of node, only what is sure to be there is named.
"""

from __future__ import annotations

from typing import Any

import msgspec

from sfss.config import LARGEST_FILE, NAMESPACE_NAME, Namespace, Size
from sfss.membership import NAME as NODE_NAME
from sfss.namespace_changes import BY_CONFIGURATION
from sfss.registration import Announcement, Answer, NodeTold
from sfss.web.ids import BY_ID, ID
from sfss.web.json_files import PostedFile
from sfss.web.listing import FoundPage, ListPage

Schema = dict[str, Any]

BASE64 = "(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"
_REF = "#/components/schemas/{name}"
_TEXT: Schema = {"type": "string"}
_FIGURES: Schema = {"type": "object", "additionalProperties": _TEXT}  # by name; numbers as texts
_BYTES: Schema = {"type": "integer", "minimum": 0}
_SHA256: Schema = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_ABOUT_SIZE = "A number of bytes: 65536; or as in the configuration: 64KiB, 2MiB, 1GiB."
_QUOTA: list[Schema] = [
    {"type": "integer", "minimum": 0, "maximum": 2**60},
    {"type": "string", "pattern": "^[0-9]{1,4}(B|KiB|MiB|GiB|TiB)$"},
]
_FILE_SIZE: list[Schema] = [
    {"type": "integer", "minimum": 0, "maximum": LARGEST_FILE},
    {"type": "string", "pattern": "^[0-9]{1,3}(B|KiB|MiB|GiB)$"},
]
# What must be said with a layout: ``Namespace.check``.
_LAYOUTS: list[Schema] = [
    {
        "if": {"properties": {"layout": {"const": "raid0"}}, "required": ["layout"]},
        "then": {"required": ["pieces"], "properties": {"pieces": {"type": "integer", "minimum": 2}}},
    },
    {
        "if": {"properties": {"layout": {"const": "raid1"}}, "required": ["layout"]},
        "then": {
            "required": ["copies"],
            "properties": {"copies": {"type": "integer", "minimum": 2}, "pieces": {"enum": [None, 1]}},
        },
    },
]


def ref(name: str) -> Schema:
    """What stands for one of the components."""
    return {"$ref": _REF.format(name=name)}


def schemas() -> dict[str, Schema]:
    """All of them, by name."""
    _, made = msgspec.json.schema_components(
        [ListPage, FoundPage, PostedFile, Announcement, Answer, NodeTold, Namespace],
        schema_hook=_of_type,
        ref_template=_REF,
    )
    wanted, told = _namespaces(made.pop("Namespace"))
    made["PostedFile"]["properties"]["data"] |= {"pattern": f"^{BASE64}$"}
    announced, asked = made["Announcement"]["properties"], made["Answer"]["properties"]
    announced["name"] |= {"pattern": f"^{NODE_NAME.pattern}$"}
    announced["id"] |= {"pattern": "^[A-Za-z0-9]{8,64}$", "description": "What its STATS tell as node_id."}
    announced["capacity"] |= {"minimum": 0, "maximum": 2**62 - 1, "description": "In bytes."}
    announced["address"] |= {"pattern": "^[A-Za-z0-9.-]{1,200}:[1-9][0-9]{0,3}$"}
    asked["state"] |= {"enum": ["seed", "joining", "member", "leaving", "waiting"]}
    return {
        **made,
        "Namespace": wanted,
        "NamespaceChange": _change_of(wanted),
        "NamespaceTold": told,
        "NamespaceList": _object({"namespaces": {"type": "array", "items": ref("NamespaceTold")}}),
        "FileById": _FILE_BY_ID,
        "NodeFigures": _NODE_FIGURES,
        "Status": {"anyOf": [ref("NodeFigures"), ref("FullStatus")]},
        "FullStatus": _FULL_STATUS,
        "NodeList": _object(
            {
                "doing": {"enum": ["nothing", "telling", "moving", "tidying"]},
                "nodes": {"type": "array", "items": ref("NodeTold")},
            }
        ),
        "Health": _HEALTH,
        "Readiness": _READINESS,
        "Life": _object({"status": {"const": "alive"}}),
        "Rights": _RIGHTS,
    }


def _of_type(type_: type) -> Schema:
    assert type_ is Size, type_
    return {"description": _ABOUT_SIZE}


def _object(properties: dict[str, Schema], *, also: dict[str, Schema] | None = None) -> Schema:
    """All ``properties`` are there, and some of ``also``."""
    return {"type": "object", "required": sorted(properties), "properties": {**properties, **(also or {})}}


def _namespaces(made: Schema) -> tuple[Schema, Schema]:
    """A namespace as it is to be, and as it is told."""
    fields: dict[str, Schema] = made["properties"]
    for field, kinds in (("quota", _QUOTA), ("max_file_size", _FILE_SIZE)):
        fields[field] |= {"anyOf": [*kinds, {"type": "null"}]}
    name = {**fields["name"], "pattern": f"^{NAMESPACE_NAME}$"}
    given = {key: field for key, field in fields.items() if key not in BY_CONFIGURATION}
    wanted = {**made, "required": [], "properties": {**given, "name": name}, "allOf": _LAYOUTS}
    also: dict[str, Schema] = {
        "used": {
            "description": "What its files have, as far as they have been counted; where it has a quota.",
            "anyOf": [{"type": "null"}, _object({"bytes": _BYTES, "files": _BYTES})],
        },
    }
    told = {
        "type": "object",
        "required": ["name", "enabled", "source"],
        "properties": {**fields, "name": name, **also, "source": {"enum": ["configuration", "api"]}},
    }
    return wanted, told


def _change_of(wanted: Schema) -> Schema:
    """RFC 7396: what is left out stays, and null is as if it had never been said."""
    fields = {key: {"anyOf": [field, {"type": "null"}]} for key, field in wanted["properties"].items() if key != "name"}
    return {"type": "object", "properties": fields, "additionalProperties": False}


_FILE_BY_ID = _object(
    {
        "file_id": {"type": "string", "format": "uuid", "pattern": f"^{ID.pattern}$"},
        "filename": {"type": ["string", "null"], "description": "Without folders; null if none was given."},
        "size": _BYTES,
        "sha256": _SHA256,
        "content_type": _TEXT,
        "url": {"type": "string", "pattern": f"^{BY_ID.format(file_id=ID.pattern)}$"},
        "created": {"type": "string", "format": "date-time"},
    }
)

_NODE_FIGURES: Schema = {
    "type": "object",
    "description": "Every node's STATS, by `host:port`; a node that is away has none.",
    "additionalProperties": _FIGURES,
}

_NODE_STATE = _object(
    {"away": {"type": ["string", "null"], "description": "Why; null if it is here."}},
    also={"name": _TEXT, "state": _TEXT, "share": _TEXT, "since": _TEXT, "took": _TEXT},
)

_WEBSERVER = _object(
    {
        "version": _TEXT,
        "pid": _TEXT,
        "memory": _TEXT,
        "time": _TEXT,
        "uptime": _TEXT,
        "requests": _TEXT,
        "responses": {**_FIGURES, "propertyNames": {"pattern": "^[0-9]{3}$"}},
        "methods": {"type": "object", "additionalProperties": _object({"requests": _TEXT, "seconds": _TEXT})},
        "workers": {
            "type": "array",
            "items": _object({"pid": _TEXT, "uptime": _TEXT, "starts": _TEXT, "requests": _TEXT}),
        },
        "nodes": {"type": "object", "additionalProperties": _NODE_STATE},
        "ring": _FIGURES,
        "rebalance": _FIGURES,
        "copies": _FIGURES,
        "repair": _FIGURES,
        "warnings": {"type": "array", "items": _TEXT},
    },
    also={
        "catalogue": _FIGURES,
        "write_behind": {"type": "object", "additionalProperties": {"type": "object"}},
    },
)

_FULL_STATUS = _object({"storages": ref("NodeFigures"), "webserver": _WEBSERVER})

_HEALTH = _object(
    {"status": {"enum": ["ok", "degraded", "down"]}},
    also={
        "nodes": _object({"here": _BYTES, "away": {**_FIGURES, "description": "Why, by node."}}),
        "checks": {**_FIGURES, "description": "`ok`, or what is wrong, by what was looked at."},
        "version": _TEXT,
    },
)
_HEALTH["description"] = "More than the status is told to whoever may see the nodes."

_READINESS = _object(
    {"status": {"enum": ["ready", "no node is here"]}},
    also={"nodes": {**_FIGURES, "description": "`here`, or why it is away; to whoever may see the nodes."}},
)

_SWITCHES = ("admin", "list", "read", "write", "delete", "open", "write_once", "search")
_RIGHTS = _object(
    {
        "key": {"type": ["string", "null"], "description": "The id of the key that was shown."},
        "fault": {"type": ["string", "null"], "description": "What is wrong with it."},
        **{key: {"type": "boolean"} for key in _SWITCHES},
        "why": {**_FIGURES, "description": "Why not, of `read`, `write`, and `closed`."},
        "max_file_size": _BYTES,
        "max_file_size_setting": _TEXT,
    },
    also={"prefix": _TEXT, "path": _TEXT},
)
