"""What a write has to keep to besides its caller's condition: write-once paths, and quotas. Knows no nodes.

Both are asked of the very state that the write takes the place of, as any condition is (``files.py``), and so no other
write comes between. A quota's counts are this front's: what it has counted last, and what it has written since.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Generic, NamedTuple, Protocol, TypeVar

from sfss.errors import QuotaExceeded, Unavailable, WriteOnce


class Sized(Protocol):
    """What is known of a file."""

    @property
    def size(self) -> int: ...


T = TypeVar("T", bound=Sized)


class Used(NamedTuple):
    """What a namespace has."""

    bytes: int
    files: int


class Tank:
    """How much of a namespace's quota is taken, as this front knows."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.bytes: int | None = None  # that there may be; None: any number
        self.files: int | None = None
        self.used: Used | None = None  # None until it has been counted
        self.why: str = "its files are being counted"  # it isn't known
        self.coming = Used(0, 0)  # with writes on their way
        self._since = Used(0, 0)  # what has come, and wasn't there when the count began

    @property
    def words(self) -> str:
        return f"the namespace '{self.name}'"

    def begin_count(self) -> None:
        """What is written from now on isn't sure to be counted."""
        self._since = Used(0, 0)

    def counted(self, used: Used) -> None:
        """So much there was. What came meanwhile is taken to have been missed: rather too much than too little."""
        self.used = Used(used.bytes + self._since.bytes, used.files + self._since.files)

    def changed(self, bytes: int, files: int) -> None:
        """A write has made it more, or less."""
        if self.used is not None:
            self.used = Used(max(self.used.bytes + bytes, 0), max(self.used.files + files, 0))
        self._since = Used(self._since.bytes + max(bytes, 0), self._since.files + max(files, 0))

    def come(self, bytes: int, files: int) -> None:
        """So much more is on its way, or less."""
        self.coming = Used(self.coming.bytes + bytes, self.coming.files + files)

    def check(self, bytes: int, files: int) -> None:
        """Raises QuotaExceeded if there is no room for so much more, beside what is coming; Unavailable if unknown."""
        if self.used is None:
            raise Unavailable(f"{self.words} has a quota, and it isn't known yet how much is used: {self.why}")
        left = None if self.bytes is None else self.bytes - self.used.bytes - self.coming.bytes
        if left is not None and bytes > 0 and bytes > left:
            raise QuotaExceeded(
                f"{self.words} may have {self.bytes} bytes, of which {self.used.bytes} are used and"
                f" {self.coming.bytes} on their way: delete some, or raise its quota"
            )
        if self.files is not None and files > 0 and self.used.files + self.coming.files + files > self.files:
            raise QuotaExceeded(
                f"{self.words} may have {self.files} files, and has {self.used.files}: delete some, or raise its"
                " quota_files"
            )


class Bound(Generic[T]):
    """One write. ``tank``: of its namespace, if that has a quota."""

    def __init__(
        self,
        path: str,
        condition: Callable[[T | None], None] | None = None,
        *,
        write_once: bool,
        tank: Tank | None,
        is_deletion: bool = False,
    ) -> None:
        self._path = path
        self._condition = condition
        self._write_once = write_once
        self._tank = tank
        self._is_deletion = is_deletion
        self._size = 0  # bytes, as far as they are known
        self._held = Used(0, 0)  # of what is coming into the tank
        self._there: T | None = None  # what it takes the place of, as seen last

    def condition(self, there: T | None) -> None:
        """To be asked of what is there; raises what the caller's condition raises, WriteOnce, QuotaExceeded."""
        if self._condition is not None:
            self._condition(there)
        if self._write_once and there is not None:
            raise WriteOnce(self._path)
        self._there = there
        if not self._is_deletion:
            self._take(self._size)

    async def checking(self, content: AsyncIterator[bytes], size: int | None) -> AsyncGenerator[bytes, None]:
        """The same content, of ``size`` bytes if that is known; raises QuotaExceeded when there is no room for it."""
        self._take(size or 0)
        size = 0
        async for chunk in content:
            size += len(chunk)
            if size > self._size:
                self._take(size)
            yield chunk

    def is_to_take(self, size: int) -> None:
        """The file will have so many bytes. Raises QuotaExceeded."""
        self._take(size)

    def kept(self, size: int) -> None:
        """The file is there, with so many bytes."""
        if self._tank is not None:
            there = self._there
            self._tank.changed(size - (there.size if there else 0), 0 if there else 1)

    def removed(self) -> None:
        """The file is gone."""
        if self._tank is not None and self._there is not None:
            self._tank.changed(-self._there.size, -1)

    def end(self) -> None:
        """Whatever has come of it, nothing is on its way any more."""
        if self._tank is not None:
            self._tank.come(-self._held.bytes, -self._held.files)
            self._held = Used(0, 0)

    def _take(self, size: int) -> None:
        """Have room for so many bytes in all, in the place of what is there."""
        self._size = size
        if self._tank is None:
            return
        more = Used(size - (self._there.size if self._there else 0), 0 if self._there else 1)
        self.end()
        self._tank.check(*more)
        self._held = Used(max(more.bytes, 0), more.files)
        self._tank.come(*self._held)
