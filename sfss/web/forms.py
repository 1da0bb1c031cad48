"""Finds the file in a multipart/form-data body (RFC 7578), as the body comes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from sfss.errors import BadBody, BadRequest

FILE_FIELD = b"upload_file"
HELD = 2 * 1024 * 1024  # bytes of another part's file that are kept in case an upload_file follows
MAX_ASIDE = 64 * 1024  # bytes of a body that aren't its file: boundaries, headers, a form's other fields


class Form:
    """The file is the part ``upload_file``, else the first part that has a file name.

    An ``upload_file`` is handed on as it comes. Another part with a file name has to be kept until the body's end, for
    an ``upload_file`` may still come. One that is larger than ``HELD`` is taken for the file; none may come then.
    ``check_size`` bounds it.
    """

    def __init__(self, content_type: str, check_size: Callable[[int], None]) -> None:
        if not content_type.isascii():
            raise BadRequest("Content-Type: a form's boundary is made of ASCII characters")
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary")
        if kind != b"multipart/form-data" or not boundary:
            raise BadRequest("Content-Type: the body is multipart, but not multipart/form-data with a boundary")
        # What the part says of itself; final when ``file`` has ended.
        self.type: str | None = None
        self.name: str | None = None
        self._check_size = check_size
        self._pieces: list[bytes] = []  # of upload_file, to be handed on
        self._other: list[bytes] | None = None  # the first other part with a file name; None: there was none yet
        self._other_size = 0
        self._other_type: str | None = None
        self._other_name: str | None = None
        self._into: list[bytes] | None = None  # where the present part's data go: one of the two, or nowhere
        self._found = self._ended = False  # an upload_file; the closing boundary
        self._aside = 0
        self._closing = len(boundary) + len(b"\r\n----\r\n")
        self._headers: dict[bytes, bytes] = {}  # the present part's ...
        self._options: dict[bytes, bytes] = {}  # ... and what its Content-Disposition says
        self._name = self._value = b""
        callbacks = {
            "on_part_begin": self._headers.clear,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers_finished,
            "on_part_data": self._on_part_data,
            "on_end": self._on_end,
        }
        try:
            self._parser = MultipartParser(boundary, callbacks)  # type: ignore[arg-type]
        except FormParserError as error:
            raise BadRequest(f"Content-Type: {error}") from None

    @property
    def beside(self) -> int:
        """Bytes of the body that are not its file's, so far, with those of the closing boundary that is to come."""
        return self._aside + (0 if self._ended else self._closing)

    async def file(self, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The file's bytes. Raises BadBody if the body isn't whole, or holds no file or two."""
        async for chunk in body:
            self._feed(chunk)
            for piece in self._pieces:
                yield piece
            self._pieces.clear()
        if not self._ended:
            raise BadBody("the multipart body ends before its closing boundary")
        if self._found:
            return
        if self._other is None:
            raise BadBody("the form holds no file: send it as the part upload_file")
        self.type, self.name = self._other_type, self._other_name
        for piece in self._other:
            yield piece

    def _feed(self, chunk: bytes) -> None:
        self._aside += len(chunk)  # _on_part_data takes off what belongs to a file
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise BadBody(f"the multipart body can't be read: {error}") from None
        if self._aside > MAX_ASIDE:
            raise BadBody(f"the form holds more than {MAX_ASIDE} bytes beside its file: send the file alone")

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        self._headers[self._name.lower()] = self._value
        self._name = self._value = b""

    def _on_headers_finished(self) -> None:
        _, self._options = parse_options_header(self._headers.get(b"content-disposition"))
        self._into = None
        # A browser sends a part with an empty name and no data where no file was chosen. That is no file: the one that
        # is there must not become empty. So an unnamed part is only a file when data come.
        if self._options.get(b"filename") != b"":
            self._begin_part()

    def _begin_part(self) -> None:
        """Decide where the part's data go."""
        type = self._headers.get(b"content-type", b"").decode("latin-1")
        name = self._options.get(b"filename", b"").decode(errors="replace")
        if self._options.get(b"name") == FILE_FIELD:
            if self._found:
                raise BadBody("the form holds upload_file twice, or behind another large file: send one file at a time")
            self._found, self.type, self.name, self._into = True, type, name, self._pieces
            self._other = []
        elif b"filename" in self._options and self._other is None:
            self._other, self._other_type, self._other_name = [], type, name
            self._into = self._other

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._options.get(b"filename") == b"":
            self._options[b"filename"] = b"unnamed"
            self._begin_part()
        if self._into is None:
            return
        self._aside -= end - start
        self._into.append(data[start:end])
        if self._into is self._other:
            self._other_size += end - start
            self._check_size(self._other_size)
            if self._other_size > HELD:
                self._found, self.type, self.name, self._other = True, self._other_type, self._other_name, []
                self._pieces = self._into

    def _on_end(self) -> None:
        self._ended = True
