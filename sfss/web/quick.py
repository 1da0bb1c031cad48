"""The quick way: GET, and PUT and POST of small files, in few steps from the bytes of a request to those of its answer.

A request of ``/file`` through aiohttp costs four times what the service itself does: a request and a response object,
a router, middlewares, a task. What is asked most goes without them, straight from the connection (``connection.py``) to
the file service and back. It is told its answer (``told.py``), in the loop's turn in which the node's comes.

What is answered is the same as there, for the same functions make it: ``path_in``, ``answers``, ``problems``. Whatever
is not plainly of this kind is left to aiohttp, before or, where a file turns out to lie in blocks, after a look.
``docs/speed.rst`` says what each step costs.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from sfss.errors import SfssError
from sfss.files import SMALL, File, Files, Info
from sfss.web import answers, content_types, heads, problems
from sfss.web.answers import Asked
from sfss.web.files import condition, location, meta_given, path_in
from sfss.web.heads import Head
from sfss.web.inflight import InFlight
from sfss.web.status import StatusHandlers


class Asker(Protocol):
    """The connection on which a request came. Just one of these is called for each that is taken, and only once."""

    def answer(self, head: bytes, body: bytes | memoryview, *, last: bool) -> None:
        """Send the answer. ``last``: and hang up."""

    def leave(self, file: File) -> None:
        """It is aiohttp's after all, and this is the file that is wanted."""


class Quick:
    """Takes requests over one file service."""

    def __init__(self, files: Files, *, in_flight: InFlight, status: StatusHandlers, retry_after: float) -> None:
        """``retry_after`` in seconds, for answers that say that nodes are away."""
        self._files = files
        self._in_flight = in_flight
        self._status = status
        self._retry_after = retry_after
        self._tasks: set[asyncio.Task[None]] = set()
        self.taken = 0  # requests, since the start

    @property
    def stopping(self) -> bool:
        """Whether whoever asks is to hang up behind his answer."""
        return self._in_flight.stopping

    def body_wanted(self, head: Head) -> int | None:
        """How many bytes must be here, behind the head, before ``take``; None if the request is none for it."""
        if self.stopping:
            return None
        length = head.fields.length
        if head.method == b"GET":
            return 0 if head.page == b"/file" and length is None else None
        if head.method not in (b"PUT", b"POST") or head.page not in (b"/file", b"/files"):
            return None
        return length if length is not None and length <= SMALL and head.fields.is_plain else None

    def take(self, head: Head, body: bytes, asker: Asker) -> None:
        """Answer it, soon or at once."""
        self._in_flight.begin()
        self.taken += 1
        try:
            path = path_in((head.query or b"").decode("ascii"))
            if head.method == b"GET":
                self._files.open_soon(path, _Reading(self, head.asked, asker))
            else:
                task = asyncio.create_task(self._put(path, head, body, asker))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        except SfssError as error:
            self.fail(error, asker)

    async def close(self) -> None:
        """Give up what goes on."""
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _put(self, path: str, head: Head, body: bytes, asker: Asker) -> None:
        headers = head.fields.headers
        try:
            info = await self._files.put_small(
                path, body,
                type=content_types.given(headers.get("Content-Type")),
                meta=meta_given(headers),
                condition=condition(head.asked.preconditions),
            )  # fmt: skip
            self._stored(info, head, asker)
        except SfssError as error:
            self.fail(error, asker)
        except Exception:  # noqa: BLE001  it is logged, and whoever asked is told
            self.finish(*problems.bug(f"PUT of '{path}'"), asker)

    def _stored(self, info: Info, head: Head, asker: Asker) -> None:
        headers = {"ETag": answers.etag(info)}
        if head.method == b"POST":
            headers["Location"] = location(info.path)
            self.finish(201, headers, b"", asker)
        else:
            self.finish(200, headers, b"", asker)

    def fail(self, error: SfssError, asker: Asker) -> None:
        """Answer with the error's problem document."""
        self.finish(*problems.document(error, self._retry_after), asker)

    def finish(self, status: int, headers: dict[str, str], body: bytes | memoryview | None, asker: Asker) -> None:
        """Answer, and be done with the request. ``body`` None: of a 304, which has none."""
        last = self.stopping
        head = heads.answer(status, headers, None if body is None else len(body), last=last)
        self._done(status)
        asker.answer(head, body or b"", last=last)

    def finish_whole(self, info: Info, content: memoryview, asker: Asker) -> None:
        """The same of a whole file, as most answers are."""
        head = heads.whole_file(info)
        self._done(200)
        asker.answer(head, content, last=False)

    def _done(self, status: int) -> None:
        self._status.responded(status)
        self._in_flight.end()

    def leave(self, file: File, asker: Asker) -> None:
        """Be done with the request without an answer."""
        self._in_flight.end()
        asker.leave(file)


class _Reading:
    """A GET that waits for its file. Is called with it."""

    __slots__ = ("_asked", "_asker", "_quick")

    def __init__(self, quick: Quick, asked: Asked, asker: Asker) -> None:
        self._quick = quick
        self._asked = asked
        self._asker = asker

    def __call__(self, file: File | SfssError) -> None:
        try:
            if isinstance(file, SfssError):
                raise file
            if file.content is None:
                self._quick.leave(file, self._asker)
                return
            if self._asked.nothing and not file.info.meta and not self._quick.stopping:
                self._quick.finish_whole(file.info, file.content, self._asker)
                return
            status, headers, start, stop = answers.to_get(file.info, self._asked)
            body = None if status == 304 else file.content[start:stop]
            self._quick.finish(status, headers, body, self._asker)
        except SfssError as error:
            self._quick.fail(error, self._asker)
        except Exception:  # noqa: BLE001  as in a PUT
            self._quick.finish(*problems.bug("GET"), self._asker)
