"""The document at /openapi.json: that it is one, and whole, that it depends on what is set, and who may see it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from sfss import config, errors, paths
from sfss.access.keys import READ, WRITE, Scope
from sfss.config import PAGES
from sfss.errors import BadPath, SfssError
from sfss.web import problems
from sfss.web.app import OPENAPI, create_app, reload
from sfss.web.conditional import Unsatisfiable
from sfss.web.openapi.parameters import PARAMETERS
from sfss.web.problems import PROBLEMS
from tests.conftest import Client, Nodes, StartFront
from tests.web.guarded import Start
from tests.web.tus import PIECE, Tus

Document = dict[str, Any]
Sections = Mapping[str, Any]

# All that can be on, in two ways, for files at the root are the opposite of some of it.
EVERYTHING: Sections = {
    "access": {"anonymous": [], "signing_secrets": ["a-signing-secret-of-the-tests"], "key_rate": 1000.0},
    "namespaces": {"api": True},
    "catalogue": {"url": "sqlite:///never-opened.db"},
    "json": {"prefix": "hidden-clients/"},
    "registration": {"enabled": True, "secret": "a-secret-of-nodes"},
    "policy": (
        {"prefix": "hidden-policy/", "write_once": True, "write_behind": "redis://:hidden-password@127.0.0.1/0"},
    ),
    "namespace": ({"name": "hidden-namespace", "quota": "1MiB"},),
}
AT_THE_ROOT: Sections = {"post": {"enabled": True}}
OFFERS: dict[str, Sections] = {"as it comes": {}, "everything": EVERYTHING, "at the root": AT_THE_ROOT}


def made(sections: Sections) -> tuple[Document, set[tuple[str, str]]]:
    """The document of a front with these settings, and its routes."""
    app = create_app(config.load(overrides=dict(sections)))
    routes = [(route.method, route.resource) for route in app.router.routes()]
    content, _ = app[OPENAPI].document()
    return json.loads(content), {(method, resource.canonical) for method, resource in routes if resource is not None}


@pytest.fixture(params=OFFERS)
def sections(request: pytest.FixtureRequest) -> Sections:
    return OFFERS[request.param]


def described(document: Document) -> set[tuple[str, str]]:
    return {
        (method.upper(), page) for page, item in document["paths"].items() for method in item if method != "parameters"
    }


# --- that it is one, and whole ---


async def test_it_is_an_openapi_document(sections: Sections) -> None:
    document, _ = made(sections)
    assert [error.message for error in OpenAPIV31SpecValidator(document).iter_errors()] == []
    ids = [operation["operationId"] for item in document["paths"].values() for operation in item.values()
           if isinstance(operation, dict)]  # fmt: skip
    assert len(ids) == len(set(ids))


async def test_every_route_is_in_it_and_no_other(sections: Sections) -> None:
    document, routes = made(sections)
    found = described(document)
    for method, page in found:
        assert (method, page) in routes or ("*", page) in routes
    missing = {(method, page) for method, page in routes if method != "*"} - found
    assert missing <= REFUSING
    assert {page for method, page in routes if method == "*"} <= document["paths"].keys()


# What is off, and says so: the next test holds that these do nothing else.
REFUSING = {
    ("POST", "/nodes"),
    ("DELETE", "/nodes/{name}"),
    *((method, "/namespaces/{name}") for method in ("GET", "PUT", "PATCH", "DELETE")),
    *((method, "/{namespace}/{path}") for method in ("GET", "HEAD", "PUT", "POST", "DELETE")),
    *((method, "/{path}") for method in ("PUT", "DELETE")),
}


@pytest.mark.parametrize("sections", [{}, AT_THE_ROOT], ids=["as it comes", "at the root"])
async def test_a_route_that_is_not_in_it_refuses_whatever_is_asked(
    start_front: StartFront, our_nodes: Nodes, sections: dict[str, Any]
) -> None:
    front = await start_front(our_nodes, **sections)
    document, routes = made(sections)
    for method, page in {(method, page) for method, page in routes if method != "*"} - described(document):
        url = page.format(name="some", namespace="some", path="a-file")
        async with front.request(method, url, data=b"{}" if method in ("PUT", "POST", "PATCH") else None) as answer:
            assert answer.status in (403, 404, 405, 409), (method, page)


async def test_every_problem_is_in_it() -> None:
    told: set[tuple[int, str]] = set()
    for sections in OFFERS.values():
        document, _ = made(sections)
        schemas = document["components"]["schemas"]
        told |= {
            (schema["properties"]["status"]["const"], schema["properties"]["type"]["const"])
            for name, schema in schemas.items()
            if name.startswith("Problem-")
        }
    there = {(problem.status, f"urn:sfss:{problem.name}") for problem in PROBLEMS.values()}
    assert {each for each in told if each[1] != "urn:sfss:http"} == there


def an_error(kind: type[SfssError]) -> SfssError:
    """One of that kind, as it is raised."""
    if issubclass(kind, errors.TooLarge):
        return kind("it is too large", limit=1, setting="limits.max_file_size")
    if issubclass(kind, errors.TooMany | errors.BacklogFull):
        return kind("wait", wait=1.5)
    if issubclass(kind, errors.NodeError | errors.Unsupported):
        return kind("127.0.0.1:1", "it is away")
    if issubclass(kind, errors.NotAllowed):
        return kind("it is written once", allowed=("GET", "HEAD"))
    return Unsatisfiable(5) if kind is Unsatisfiable else kind("words")


async def test_every_problem_is_answered_as_it_says() -> None:
    checked = set()
    for sections in OFFERS.values():
        document, _ = made(sections)
        for kind, problem in PROBLEMS.items():
            name = f"Problem-{problem.status}-{problem.name}"
            if name not in document["components"]["schemas"]:
                continue
            status, headers, body = problems.document(an_error(kind), 2.0, "a-request")
            schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
            Draft202012Validator(schema).validate(json.loads(body))
            for response in document["components"]["responses"].values():
                if (
                    response.get("content", {}).get("application/problem+json", {}).get("schema")
                    == {"$ref": f"#/components/schemas/{name}"}
                    and "Tus-Resumable" not in response["headers"]
                ):
                    assert response["headers"].keys() == {"X-Request-ID", *headers.keys() - {"Content-Type"}}
                    checked.add(status)
    assert {405, 413, 416, 429} <= checked


# --- that it says what is so ---

PATH = PARAMETERS["path"]["schema"]
_PATTERN = re.compile(PATH["pattern"].replace("$", r"\Z"))  # Python's own $ is also before a line's end


SEGMENTS = st.sampled_from(["a", "..", ".", "...", "", ".a", "a.", "é b", "..\\", "\x00", "\x85", "..x", "\U0001f600"])


@given(st.one_of(st.text(max_size=40), st.lists(SEGMENTS, max_size=5).map("/".join)))
@example("a/../b")
@example("...")
@example("a//b")
@example("a\n")
@settings(max_examples=200)
async def test_the_pattern_of_paths_is_what_is_checked(path: str) -> None:
    try:
        right = bool(paths.check(path)) and len(path.encode()) <= PATH["maxLength"]
    except BadPath as error:
        if "bytes in UTF-8" in str(error):  # which a pattern can't say
            return
        right = False
    assert (_PATTERN.match(path) is not None) is right


async def test_what_a_link_leads_to_is_what_was_made(start_front: StartFront, our_nodes: Nodes) -> None:
    front = await start_front(our_nodes, namespaces={"api": True})
    document = await (await front.get("/openapi.json")).json()
    places = {operation["operationId"]: (method, page) for page, item in document["paths"].items()
              for method, operation in item.items() if isinstance(operation, dict)}  # fmt: skip
    answer = await front.post("/files", data=b"content")
    links = document["paths"]["/files"]["post"]["responses"]["201"]["links"]
    file_id = (await answer.json())["file_id"]
    assert {link["parameters"]["path.file_id"] for link in links.values()} == {"$response.body#/file_id"}
    for operation in ("get_by_id", "head_by_id", "delete_by_id"):
        method, page = places[links[operation]["operationId"]]
        async with front.request(method, page.format(file_id=file_id)) as found:
            assert found.status in (200, 204)
    assert (await front.get(f"/files/{file_id}")).status == 404


async def test_what_it_says_can_be_removed_can_be(start_front: StartFront, our_nodes: Nodes) -> None:
    front = await start_front(our_nodes, namespaces={"api": True})
    assert (await front.put("/namespaces/openapi-test", json={})).status == 201
    assert (await front.put("/openapi-test/a", data=b"x")).status == 200
    assert (await front.delete("/openapi-test/a")).status == 204
    assert (await front.delete("/namespaces/openapi-test")).status == 204
    tus = Tus(front)
    upload = await tus.create("openapi-test", 5)
    headers = {"X-HTTP-Method-Override": "PATCH", "Upload-Offset": 0, **PIECE}
    assert (await tus.request("POST", upload, headers, b"12")).status == 204
    assert (await tus.request("DELETE", upload)).status == 204


# --- that it depends on what is set ---


def names(sections: Sections) -> set[str]:
    """What the document of these settings calls its operations and components."""
    document, _ = made(sections)
    operations = {
        operation["operationId"] for item in document["paths"].values() for operation in item.values()
        if isinstance(operation, dict)
    }  # fmt: skip
    return operations.union(*document["components"].values())


async def test_what_is_off_is_not_in_it() -> None:
    plain, everything = names({}), names(EVERYTHING)
    on = {"min_size", "client_id", "put_namespace", "post_node", "get_within", "key", "signature", "FoundPage",
          "Problem-401-no-key", "Problem-429-too-many-requests", "Problem-504-short-term-away",
          "Problem-507-quota-exceeded"}  # fmt: skip
    assert on <= everything
    assert not on & plain
    assert "get_at_root" in names(AT_THE_ROOT) - everything
    assert {"get_page", "get_rights"} <= plain - names({"dashboard": {"enabled": False}})


async def test_it_names_the_limit_that_is_set() -> None:
    document, _ = made({"limits": {"max_file_size": 12345}})
    assert "12345 bytes at most" in str(document["paths"]["/file"]["put"]["requestBody"])
    assert document["components"]["parameters"]["Upload-Length"]["schema"]["maximum"] == 12345


@pytest.mark.parametrize(
    ("access", "to_read", "to_write", "to_see_nodes"),
    [
        ({}, [], [], []),
        ({"anonymous": ["read"]}, [{"key": []}, {}], [{"key": []}], [{"key": []}]),
        ({"anonymous": ["read", "write"], "key_rate": 1.0}, [{"key": []}, {}], [{"key": []}, {}], [{"key": []}, {}]),
    ],
)
async def test_it_says_what_has_to_be_shown(
    access: dict[str, Any], to_read: list[Any], to_write: list[Any], to_see_nodes: list[Any]
) -> None:
    document, _ = made({"access": access})
    page = document["paths"]["/file"]
    assert (page["get"]["security"], page["put"]["security"]) == (to_read, to_write)
    assert document["paths"]["/nodes"]["get"]["security"] == to_see_nodes
    assert document["paths"]["/livez"]["get"]["security"] == []


async def test_a_signed_url_is_a_way_in_for_a_file_alone() -> None:
    document, _ = made({"access": {"anonymous": [], "signing_secrets": ["a-secret-of-the-tests"]}})
    ways: list[Document] = [{"key": []}, {"signature": [], "expires": []}]
    assert document["paths"]["/file"]["head"]["security"] == ways
    assert document["paths"]["/files"]["get"]["security"] == [{"key": []}]


async def test_nothing_that_is_there_is_named_in_it() -> None:
    everything = str(made(EVERYTHING)[0])
    for secret in ("hidden", "signing-secret", "secret-of-nodes", "127.0.0.1", "never-opened", "by-id"):
        assert secret not in everything, secret


async def test_a_reload_is_in_it(start_front: StartFront, our_nodes: Nodes) -> None:
    front = await start_front(our_nodes)
    before = await front.get("/openapi.json")
    assert "/{namespace}/{path}" not in (await before.json())["paths"]
    overrides: dict[str, Any] = {"storage": {"nodes": our_nodes}, "namespace": ({"name": "openapi-made"},)}
    await reload(front.app, config.load(overrides=overrides))
    after = await front.get("/openapi.json", headers={"If-None-Match": before.headers["ETag"]})
    assert "/{namespace}/{path}" in (await after.json())["paths"]


# --- how it is sent, and to whom ---


@pytest.fixture
async def front(start_front: StartFront, our_nodes: Nodes) -> Client:
    return await start_front(our_nodes)


async def test_it_is_sent_again_only_if_it_has_changed(front: Client) -> None:
    answer = await front.get("/openapi.json")
    assert (answer.status, answer.content_type) == (200, "application/json")
    assert answer.headers["Cache-Control"] == "no-cache"
    again = await front.get("/openapi.json", headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status, await again.read(), again.headers["ETag"]) == (304, b"", answer.headers["ETag"])
    head = await front.head("/openapi.json")
    assert (head.status, head.headers["Content-Length"]) == (200, str(len(await answer.read())))


async def test_it_is_the_same_at_every_front(start_front: StartFront, our_nodes: Nodes) -> None:
    tags = {(await (await start_front(our_nodes)).head("/openapi.json")).headers["ETag"] for _ in range(2)}
    assert len(tags) == 1


async def test_it_is_the_same_for_whoever_is_let_in(start_guarded: Start) -> None:
    front = await start_guarded()
    key = await front.key(Scope("mine/", (READ, WRITE)))
    answers = [
        await front.ask("GET", "/openapi.json", *lines) for lines in ((), (key,), ("Authorization: Bearer wrong",))
    ]
    assert [answer.status for answer in answers] == [200, 200, 200]
    assert len({answer.body for answer in answers}) == 1


async def test_who_is_not_let_in_does_not_get_it(start_guarded: Start) -> None:
    front = await start_guarded(deny=["127.0.0.0/8"])
    assert await front.status("GET", "/openapi.json") == 403


async def test_no_namespace_can_have_its_name() -> None:
    assert "openapi.json" in PAGES
