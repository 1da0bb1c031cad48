"""The quick way: GET, and PUT and POST of small files, in few steps from the bytes of a request to those of its answer.

A request of ``/file`` through aiohttp costs four times what the service itself does: a request and a response object,
a router, middlewares, a task. What is asked most goes without them, straight from the connection (``connection.py``) to
the file service and back. It is told its answer (``told.py``), in the loop's turn in which the node's comes.

What is answered is the same as there, for the same functions make it: ``path_in``, ``answers``, ``problems``. Whatever
is not plainly of this kind is left to aiohttp, before or, where a file turns out to lie in blocks, after a look.
``docs/speed.rst`` says what each step costs.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Protocol

from sfss.errors import SfssError
from sfss.files import SMALL, File, Files, Info
from sfss.namespaces import Namespaces
from sfss.web import answers, content_types, heads, problems
from sfss.web.access import PRIVATE, Guard
from sfss.web.answers import NOTHING
from sfss.web.files import condition, meta_given
from sfss.web.heads import Fields, Head
from sfss.web.inflight import InFlight
from sfss.web.urls import has_path, is_page, location

_FIRST = re.compile(rb"/([A-Za-z0-9._~-]+)(?:/|$)")  # segment of a page
_NO_CONTENT = memoryview(b"")
_NO_MORE: Mapping[str, str] = {}


class Asker(Protocol):
    """The connection on which a request came. Just one of these is called for each that is taken, and only once."""

    peer: str  # the address at its other end; "" where it has none

    @property
    def request_id(self) -> str:
        """What the request is called."""

    def answer(self, status: int, head: bytes, body: bytes | memoryview, *, last: bool) -> None:
        """Send the answer, of that status; ``head``: but for the empty line at its end. ``last``: and hang up."""

    def leave(self, file: File) -> None:
        """It is aiohttp's after all, and this is the file that is wanted."""


class Quick:
    """Takes requests over one file service."""

    def __init__(
        self,
        files: Files,
        *,
        in_flight: InFlight,
        retry_after: float,
        namespaces: Namespaces,
        guard: Guard | None = None,
        at_root: bool = False,
    ) -> None:
        """``retry_after`` in seconds, for answers that say that nodes are away. ``at_root``: files have URLs there."""
        self.guard = guard  # None: everybody may do everything
        self._at_root = at_root
        self._namespaces = namespaces
        self._files = files
        self.in_flight = in_flight
        self._retry_after = retry_after
        self.taken = 0  # requests, since the start

    def body_wanted(self, head: Head) -> int | None:
        """How many bytes must be here, behind the head, before ``take``; None if the request is none for it."""
        if self.in_flight.stopping:
            return None
        length = head.fields.length
        if head.method == b"GET":
            is_file = (
                head.page == b"/file" or self._is_in_namespace(head.page) or (self._at_root and _is_file(head.page))
            )
            return 0 if length is None and is_file else None
        if head.method not in (b"PUT", b"POST"):
            return None
        if head.page not in heads.FILE_PAGES:
            if not self._is_in_namespace(head.page):
                return None
        elif head.plain_path is None and (head.method, head.page) == (b"POST", b"/files") and not _has_path(head):
            return None  # it is to get an id
        return length if length is not None and length <= SMALL and head.fields.is_plain else None

    def _is_in_namespace(self, page: bytes) -> bool:
        """Whether it is a file's: its first segment is a namespace's name, as it is written in most URLs."""
        names = self._namespaces.names
        return bool(names) and (end := page.find(b"/", 1)) > 0 and page[1:end] in names and end + 1 < len(page)

    def take(self, head: Head, body: bytes, asker: Asker) -> None:
        """Answer it, soon or at once."""
        self.in_flight.begin()
        self.taken += 1
        try:
            path = head.path
            is_private = self.guard is not None and not self.guard.check_quick(head, path, asker.peer)
            if is_private and head.method == b"GET":
                self._files.open_soon(path, functools.partial(self._opened_privately, head, asker))
            elif head.method == b"GET" and head.none_match is not None and head.fields.asked is NOTHING:
                self._files.stat_soon(path, functools.partial(self._known, head, asker))
            elif head.method == b"GET":
                self._files.open_soon(path, functools.partial(self._opened, head, asker))
            else:
                type, meta = _said_of_body(head.fields)
                self._files.put_soon(
                    path, body, functools.partial(self._stored, head.method, asker),
                    type=type, meta=meta, condition=condition(head.asked.preconditions),
                )  # fmt: skip
        except SfssError as error:
            self._fail(error, asker)
        except Exception:  # noqa: BLE001  it is logged, and whoever asked is told
            self._finish(*problems.bug(f"{head.method.decode()} of {head.path}", asker.request_id), asker)

    def _stored(self, method: bytes, asker: Asker, info: Info | SfssError) -> None:
        """Answer a PUT or a POST."""
        if isinstance(info, SfssError):
            self._fail(info, asker)
        elif method == b"POST":
            self._finish(201, {"ETag": answers.etag(info), "Location": location(info.path)}, b"", asker)
        elif self.in_flight.stopping:
            self._finish(200, {"ETag": answers.etag(info)}, b"", asker)
        else:
            self.in_flight.end()
            asker.answer(200, heads.stored(info), _NO_CONTENT, last=False)

    def _known(self, head: Head, asker: Asker, info: Info | SfssError) -> None:
        """Answer a GET of who has the file already, if it is still the one; without reading it, where that can be."""
        if isinstance(info, SfssError):
            self._fail(info, asker)
        elif head.none_match != answers.etag(info) or self.in_flight.stopping:
            self._files.open_soon(info.path, functools.partial(self._opened, head, asker))
        else:
            self.in_flight.end()
            asker.answer(304, heads.not_modified(info), _NO_CONTENT, last=False)

    def _opened(self, head: Head, asker: Asker, file: File | SfssError) -> None:
        """Answer a GET."""
        try:
            if isinstance(file, SfssError):
                self._fail(file, asker)
            elif file.content is None:
                self.in_flight.end()
                asker.leave(file)
            elif not self._answer_whole(head, file.info, file.content, asker):
                status, headers, start, stop = answers.to_get(file.info, head.asked)
                self._finish(status, headers, None if status == 304 else file.content[start:stop], asker)
        except SfssError as error:
            self._fail(error, asker)
        except Exception:  # noqa: BLE001  as above
            self._finish(*problems.bug(f"GET of {head.path}", asker.request_id), asker)

    def _opened_privately(self, head: Head, asker: Asker, file: File | SfssError) -> None:
        """The same of one that not everybody may see: no cache between may keep it for others."""
        try:
            if isinstance(file, SfssError):
                self._fail(file, asker, PRIVATE)
            elif file.content is None:
                self.in_flight.end()
                asker.leave(file)
            else:
                status, headers, start, stop = answers.to_get(file.info, head.asked)
                content = None if status == 304 else file.content[start:stop]
                self._finish(status, headers | PRIVATE, content, asker)
        except SfssError as error:
            self._fail(error, asker, PRIVATE)
        except Exception:  # noqa: BLE001  as above
            self._finish(*problems.bug(f"GET of {head.path}", asker.request_id), asker)

    def _answer_whole(self, head: Head, info: Info, content: memoryview, asker: Asker) -> bool:
        """Answer as most GETs are answered: with the whole file."""
        if head.fields.asked is not NOTHING or head.none_match is not None or info.meta or self.in_flight.stopping:
            return False
        answer = heads.whole_file(info)
        self.in_flight.end()
        asker.answer(200, answer, content, last=False)
        return True

    def _fail(self, error: SfssError, asker: Asker, more: Mapping[str, str] = _NO_MORE) -> None:
        """Answer with the error's problem document, and with ``more`` headers."""
        status, headers, body = problems.document(error, self._retry_after, asker.request_id)
        headers.update(more)
        self._finish(status, headers, body, asker)

    def _finish(self, status: int, headers: dict[str, str], body: bytes | memoryview | None, asker: Asker) -> None:
        """Answer, and be done with the request. ``body`` None: of a 304, which has none."""
        last = self.in_flight.stopping
        head = heads.answer(status, headers, None if body is None else len(body), last=last)
        self.in_flight.end()
        asker.answer(status, head, body or b"", last=last)


def _is_file(page: bytes) -> bool:
    """Whether it is a file's and no page, which is sure where its first segment is written plainly."""
    first = _FIRST.match(page)
    return first is not None and not is_page(first[1].decode())


def _has_path(head: Head) -> bool:
    return has_path((head.query or b"").decode())


@functools.lru_cache(256)  # as ``heads`` has the fields themselves: clients send the same again
def _said_of_body(fields: Fields) -> tuple[str | None, dict[str, str]]:
    """The content type and the metadata that come with a body. Raises BadRequest."""
    return content_types.given(fields.headers.get("Content-Type")), meta_given(fields.headers)
