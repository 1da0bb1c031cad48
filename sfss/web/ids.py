"""``POST /files`` without a path, and ``/files/ID``: files that get an id, and keep the name that they came with.

The id is a UUID of version 4: 122 random bits, which nobody guesses, and which tell neither when the file came nor how
many there are. The file's path is made from it alone (``ids.folder``/ID), so that no index has to be asked, or can be
lost; and whatever is so for a file at a path is so for this one: copies, policies, conditions, repair, lists.
"""

from __future__ import annotations

import datetime
import re
import uuid
from collections.abc import AsyncIterator

from aiohttp import web

from sfss.access.keys import READ, WRITE
from sfss.errors import Gone, NotFound
from sfss.files import Files, Info
from sfss.web import answers, content_types, disposition
from sfss.web.access import Need, Needs
from sfss.web.bodies import Upload
from sfss.web.files import REPLACED, FileHandlers, condition_of, meta_given
from sfss.web.urls import has_path, path_of

BY_ID = "/files/{file_id}"
NAME = "filename"  # of the metadata that has it: X-Meta-Filename
ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


class IdHandlers:
    """The handlers, over one file service. ``folder``: of the paths of these files."""

    def __init__(self, files: Files, handlers: FileHandlers, *, folder: str) -> None:
        self._files = files
        self._handlers = handlers
        self.folder = folder

    async def post(self, request: web.Request) -> web.StreamResponse:
        """POST /files: 201, with the id that the file has got; with a path in the query, as of a file at that path."""
        if has_path(request.rel_url.raw_query_string):
            return await self._handlers.post(request)
        file_id = str(uuid.uuid4())
        path = f"{self.folder}/{file_id}"
        upload = self._handlers.receive(request, path)
        meta = meta_given(request.headers)
        if (name := disposition.name_in(request.headers.get("Content-Disposition", ""))) is not None:
            meta[NAME] = name
        info = await self._files.put(
            path,
            _named(upload, meta),
            size=upload.size,
            about=upload.about,
            type=lambda: upload.type() or _guessed(meta.get(NAME)),
            meta=meta,
            condition=condition_of(request.headers),
        )
        url = BY_ID.format(file_id=file_id)
        created = datetime.datetime.fromtimestamp(info.modified / 1e6, datetime.UTC)
        body = {
            "file_id": file_id,
            "filename": info.meta.get(NAME),
            "size": info.size,
            "sha256": info.sha256.hex(),
            "content_type": info.type or content_types.UNKNOWN,
            "url": url,
            "created": created.isoformat().replace("+00:00", "Z"),
        }
        return web.json_response(body, status=201, headers={"Location": url, "ETag": answers.etag(info)})

    async def get(self, request: web.Request) -> web.StreamResponse:
        """GET: as of any file; it is to be saved under the name that it came with."""
        path = self.path_of(request)
        for _ in range(REPLACED):
            try:
                return await self._handlers.get_file(request, path, _saved_as)
            except Gone:  # it was replaced between two looks
                continue
        return await self._handlers.get_file(request, path, _saved_as)

    async def head(self, request: web.Request) -> web.Response:
        """HEAD: what GET would say."""
        return await self._handlers.head_file(request, self.path_of(request), _saved_as)

    async def delete(self, request: web.Request) -> web.Response:
        """DELETE: 204."""
        return await self._handlers.delete_file(request, self.path_of(request))

    @property
    def needs(self) -> Needs:
        """What whoever asks for these has to be allowed: as of the files at their paths."""
        of_one = {
            (method, BY_ID): Need(right, self.path_of)
            for method, right in (("GET", READ), ("HEAD", READ), ("DELETE", WRITE))
        }
        return {**of_one, ("POST", "/files"): Need(WRITE, self._path_to_be)}

    def _path_to_be(self, request: web.Request) -> str:
        """Where what is posted goes; as far as it is known before it has an id."""
        return path_of(request) if has_path(request.rel_url.raw_query_string) else f"{self.folder}/"

    def path_of(self, request: web.Request) -> str:
        """The path of the file whose id the URL has. Raises NotFound for what is none."""
        file_id = request.match_info["file_id"]
        if ID.fullmatch(file_id) is None:
            raise NotFound(f"{self.folder}/{file_id[:100]}")
        return f"{self.folder}/{file_id}"


async def _named(upload: Upload, meta: dict[str, str]) -> AsyncIterator[bytes]:
    """The content; when it has ended, the name that its part has is with the metadata."""
    async for chunk in upload.content:
        yield chunk
    if (name := disposition.clean(upload.name() or "")) is not None:
        meta[NAME] = name


def _guessed(name: str | None) -> str | None:
    """The type that a name stands for, which the path can't tell."""
    guess = content_types.guess(name or "")
    return None if guess == content_types.UNKNOWN else guess


def _saved_as(info: Info) -> dict[str, str]:
    return {"Content-Disposition": disposition.attachment(info.meta.get(NAME))}
