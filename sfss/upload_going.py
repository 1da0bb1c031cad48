"""One go of an upload: the content as it comes, as far as it comes, and what is kept of it by now."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable

from msgspec.structs import replace

from sfss import manifest
from sfss.errors import BadBody, BodyTimeout, SfssError, Unavailable
from sfss.manifest import NOTHING, Manifest
from sfss.upload_hold import Hold
from sfss.upload_state import State

log = logging.getLogger("sfss.uploads")


class Going:
    """One go of an upload: what it adds becomes part of the state from time to time, as it comes to be kept."""

    def __init__(self, hold: Hold, state: State, expires: Callable[[], int]) -> None:
        self.state = state
        self.kept_size = 0  # bytes of the go that the state has
        self.hold = hold
        self._before = state
        self._expires = expires
        self._told = NOTHING

    async def kept(self, so_far: Manifest) -> None:
        """Take note of the beginning that is kept by now. Raises UploadConflict, UploadGone."""
        self._told = so_far
        try:
            await self.keep(so_far, patient=False)
        except Unavailable as error:  # there will be another time
            log.info("how far the upload %s is can't be noted now: %s", self.hold.upload, error)

    async def keep(self, new: Manifest, *, patient: bool = True) -> State:
        """Have the state say that this is kept."""
        parts = manifest.join((self._before.parts, new))
        state = replace(self._before, parts=parts, offset=self._before.offset + new.size, expires=self._expires())
        self.state = await self.hold.put(state, patient=patient)
        self.kept_size = new.size
        return state

    async def keep_what_was_told(self) -> None:
        """The go has failed; have the state say what is kept of it all the same, if it doesn't yet."""
        if self._told.size > self.kept_size:
            with contextlib.suppress(SfssError):  # it has failed for another reason, and that is told
                await self.keep(self._told)


class Body:
    """The content of a go, which ends where it breaks off, so that what came before that is kept."""

    def __init__(self, content: AsyncIterator[bytes], check: Callable[[int], None], *, whole: bool) -> None:
        self.broken: SfssError | None = None
        self._content = content
        self._check = check
        self._whole = whole

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The content. Raises what it raises, but for a break if it is taken as far as it comes."""
        size = 0
        try:
            async for chunk in self._content:
                size += len(chunk)
                self._check(size)
                yield chunk
        except (BadBody, BodyTimeout) as error:
            if self._whole:
                raise
            self.broken = error
