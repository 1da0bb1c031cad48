"""Uploads that can go on after a break: the client's end of tus 1.0 (https://tus.io/protocols/resumable-upload)."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import NamedTuple

from sfss.client.api import URL, Answer, Client
from sfss.client.failures import Failure, Refused

_VERSION = {"Tus-Resumable": "1.0.0"}
_GONE = (403, 404, 410)  # the protocol's words for an upload that isn't there, or not any more
_ELSEWHERE = 409  # the upload doesn't go on there
_NO_UPLOADS = (404, 405)  # of a service that doesn't know them
# What a service may need to end an upload, if it has to read all of it once more: at so many bytes a second.
_SLOWEST = 20e6


class NoUploads(Failure):
    """The service has nothing of the kind."""


class Gone(Failure):
    """The upload isn't there: it has expired, or was never."""


class Kept(NamedTuple):
    """How far an upload is: so many bytes; ``etag`` where the service says it at the end, else ""."""

    offset: int
    etag: str = ""


async def create(client: Client, path: str, size: int, type: str = "") -> URL:
    """Begin an upload of so many bytes that is to become the file at ``path``; where to send them.

    Raises NoUploads, Refused, Broken.
    """
    headers = {**_VERSION, "Upload-Length": str(size)}
    if type:
        headers["Upload-Metadata"] = f"filetype {base64.b64encode(type.encode()).decode()}"
    url = client.url("/uploads", path=path)
    try:
        async with client.request("POST", url, b"", 0, headers) as answer:
            location = answer.headers.get("Location", "")
    except Refused as refusal:
        if refusal.status in _NO_UPLOADS:
            raise NoUploads(str(refusal)) from None
        raise
    if not location:
        raise Failure(f"{client.address} began an upload and doesn't say where: is that sfss?")
    return client.own(location, url)


async def offset(client: Client, url: URL, size: int) -> Kept:
    """How much of it the service has. Raises Gone, Refused, Broken."""
    try:
        async with client.request("HEAD", url, headers=_VERSION, extra=size / _SLOWEST) as answer:
            if answer.headers.get("Upload-Length", str(size)) != str(size):
                raise Gone(f"{client.address} has another upload there")
            return _kept(client, answer)
    except Refused as refusal:
        if refusal.status in _GONE:
            raise Gone(str(refusal)) from None
        raise


async def append(client: Client, url: URL, start: int, body: AsyncIterator[bytes] | bytes, size: int) -> Kept:
    """Send ``size`` bytes more, which begin at ``start``; how far it is then. Raises Gone, Refused, Broken."""
    headers = {**_VERSION, "Upload-Offset": str(start), "Content-Type": "application/offset+octet-stream"}
    try:
        async with client.request("PATCH", url, body, size, headers, extra=(start + size) / _SLOWEST) as answer:
            return _kept(client, answer)
    except Refused as refusal:
        if refusal.status in _GONE:
            raise Gone(str(refusal)) from None
        if refusal.status == _ELSEWHERE:  # a request from before the break got further: to ask how far helps
            refusal.passing = True
        raise


async def remove(client: Client, url: URL) -> None:
    """End it, and leave nothing behind. Raises Refused, Broken."""
    async with client.request("DELETE", url, headers=_VERSION):
        pass


def _kept(client: Client, answer: Answer) -> Kept:
    said = answer.headers.get("Upload-Offset", "")
    if not (said.isascii() and said.isdecimal()):
        raise Failure(f"{client.address} doesn't say how much of the upload it has: is that sfss?")
    return Kept(int(said), answer.headers.get("ETag", ""))
