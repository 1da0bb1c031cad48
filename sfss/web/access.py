"""Who is let in: what each request asks for and shows, on aiohttp's way and on the quick one. ``sfss/access`` judges.

Deny by default: a middleware stands before all handlers, and lets through what the table of ``needs`` names, to whom
may do that. A route that isn't in the table is open to nobody, but where everything is open to everybody.

What is judged is the path as the handler will have it: ``needs`` names the functions that handlers themselves ask.
"""

from __future__ import annotations

import contextlib
import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import parse_qsl

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from multidict import MultiMapping

from sfss.access import signing
from sfss.access.addresses import Addresses, client_of
from sfss.access.keys import ADMIN, READ, STATUS, WRITE
from sfss.access.rates import Counting, Rates
from sfss.access.rules import Rules, Shown, Wanted
from sfss.access.shared_rates import Buckets
from sfss.access.signing import Signed
from sfss.config import Network, Settings
from sfss.errors import Denied, SfssError, TooMany
from sfss.web.forwarded import FIELDS, Client, client, peer_of
from sfss.web.headers import combined
from sfss.web.heads import Head
from sfss.web.listing import prefix_of
from sfss.web.urls import CLEAN_ROUTE, path_of

log = logging.getLogger("sfss.web")

_BEARER = re.compile(r"(?i:bearer) +([^ ]+)")
# What not everybody would get, no cache may keep for others.
PRIVATE = {"Cache-Control": "private"}


class Need(NamedTuple):
    """What a request of one route needs: a ``right`` on what it names, or on all that begins so."""

    right: str
    of: Callable[[web.Request], str]  # the path, or how paths begin; as the handler finds it
    whole: bool = False

    def wanted(self, request: web.Request) -> Wanted:
        """Raises BadRequest if the request names nothing that could be judged."""
        # A signature is for one file: neither for lists nor for what tells of nodes.
        return Wanted(self.right, self.of(request), self.whole, "" if self.whole else request.method)


class Free(NamedTuple):
    """Whoever reaches this service may do it, as often as he likes: what looks whether it lives."""


class Within(NamedTuple):
    """Who is let in at all may ask; what he may the handler judges (``Guard.check``), when it knows what it's about."""


class Choice(NamedTuple):
    """One route that has two pages; ``is_first`` tells which of them a request is for."""

    is_first: Callable[[web.Request], bool]
    first: Need | Free | Within
    second: Need | Free | Within | Choice


Needs = Mapping[tuple[str, str], Need | Free | Within | Choice]

EVERYTHING, STATUS_OF_ALL = Wanted(ADMIN, "", whole=True), Wanted(STATUS, "", whole=True)
_READ, _WRITE = Need(READ, path_of), Need(WRITE, path_of)
_STATUS, _ADMIN = Need(STATUS, lambda _: "", whole=True), Need(ADMIN, lambda _: "", whole=True)
# By method and route, each as aiohttp has it. A test holds that all routes are here, or in ``web/ids.py``.
NEEDS: Needs = {
    ("GET", "/"): Free(),  # the page, and what it is made of; what it shows it asks for as others do
    ("HEAD", "/"): Free(),
    ("GET", "/dashboard/{name}"): Free(),
    ("HEAD", "/dashboard/{name}"): Free(),
    ("GET", "/dashboard/may"): Within(),
    ("HEAD", "/dashboard/may"): Within(),
    ("GET", "/file"): _READ,
    ("HEAD", "/file"): _READ,
    ("PUT", "/file"): _WRITE,
    ("POST", "/file"): _WRITE,
    ("DELETE", "/file"): _WRITE,
    ("GET", CLEAN_ROUTE): _READ,
    ("HEAD", CLEAN_ROUTE): _READ,
    ("PUT", CLEAN_ROUTE): _WRITE,
    ("POST", CLEAN_ROUTE): _WRITE,
    ("DELETE", CLEAN_ROUTE): _WRITE,
    ("GET", "/files"): Need(READ, prefix_of, whole=True),
    ("PUT", "/files"): _WRITE,
    ("*", "/uploads"): Within(),
    ("*", "/uploads/"): Within(),
    ("*", "/uploads/{upload}"): Within(),
    ("GET", "/namespaces"): _STATUS,
    ("HEAD", "/namespaces"): _STATUS,
    ("GET", "/namespaces/{name}"): _STATUS,
    ("PUT", "/namespaces/{name}"): _ADMIN,
    ("PATCH", "/namespaces/{name}"): _ADMIN,
    ("DELETE", "/namespaces/{name}"): _ADMIN,
    ("GET", "/nodes"): _STATUS,
    ("HEAD", "/nodes"): _STATUS,
    ("POST", "/nodes"): Within(),  # a node shows the secret of registration, which is no key
    ("DELETE", "/nodes/{name}"): Within(),
    ("GET", "/status"): _STATUS,
    ("HEAD", "/status"): _STATUS,
    ("GET", "/metrics"): _STATUS,
    ("HEAD", "/metrics"): _STATUS,
    ("GET", "/openapi.json"): Within(),  # it tells what there is to be asked, and of nothing that is there
    ("HEAD", "/openapi.json"): Within(),
    ("GET", "/health"): Free(),
    ("HEAD", "/health"): Free(),
    ("GET", "/livez"): Free(),
    ("HEAD", "/livez"): Free(),
    ("GET", "/readyz"): Free(),
    ("HEAD", "/readyz"): Free(),
}


class Guard:
    """Stands at the door of one front. ``rules.learn`` tells it the keys."""

    def __init__(self, settings: Settings, needs: Needs = NEEDS, buckets: Buckets | None = None) -> None:
        """``buckets``: where those are counted who ask, if other processes do it, too."""
        self._needs = needs
        self._buckets = buckets
        self._trusted: Sequence[Network] = settings.trusted_proxies
        self._key_rates: Counting = Rates(0.0)
        self._address_rates: Counting = Rates(0.0)
        self._rates_set: tuple[float, ...] = ()
        self.rules = Rules(settings)
        self.change(settings)

    def change(self, settings: Settings) -> None:
        """From now on by other settings. Who has used up his rate stays so, unless the rates are others."""
        access = settings.access
        rates = (access.key_rate, access.key_burst, access.address_rate, access.address_burst)
        if rates != self._rates_set:
            self._rates_set = rates
            self._key_rates = self._rates("key", access.key_rate, access.key_burst)
            self._address_rates = self._rates("address", access.address_rate, access.address_burst)
        self._addresses = Addresses(settings.allow, settings.deny)
        self.rules.change(settings)
        self._heeds_addresses = not self._addresses.is_open or access.address_rate > 0
        self.is_open = self.rules.are_open and self._addresses.is_open and not any(rates)

    def _rates(self, of: str, rate: float, burst: float) -> Counting:
        return Rates(rate, burst) if self._buckets is None else self._buckets.rates(of, rate, burst)

    @property
    def if_needed(self) -> Guard | None:
        """None where everything is open to everybody."""
        return None if self.is_open else self

    @property
    def middleware(self) -> Middleware:
        """Lets requests through to their handlers, or raises what ``check`` does."""

        @web.middleware
        async def judge(request: web.Request, handler: Handler) -> web.StreamResponse:
            if not self.is_open:
                self._judge(request)
            return await handler(request)

        return judge

    def check(self, request: web.Request, wanted: Wanted) -> None:
        """For handlers: raises Denied, NoKey or Unavailable unless whoever sent the request may do that."""
        if not self.is_open:
            self.rules.check(wanted, self._shown(request.headers), _signed(request), time.time())

    def check_somewhere(self, request: web.Request, right: str) -> None:
        """Raises the same if there is no path at all with which whoever sent the request may do that."""
        if not self.is_open:
            self.rules.check_somewhere(right, self._shown(request.headers))

    def may(self, request: web.Request, wanted: Wanted) -> bool:
        """The same, as an answer; False where it isn't known."""
        with contextlib.suppress(SfssError):
            self.check(request, wanted)
            return True
        return False

    def may_anybody(self, wanted: Wanted) -> bool:
        """Whether everybody may do that, from wherever he asks."""
        return self.is_open or (self._addresses.is_open and self.rules.may_anybody(wanted))

    def shown_by(self, request: web.Request) -> dict[str, str | None]:
        """What is to be said of the key that a request shows: its ``key``, an id, or its ``fault``; None where none."""
        shown = Shown() if self.is_open else self._shown(request.headers)
        fault = "the keys can't be read from the nodes yet" if shown.unknown else shown.fault
        return {"key": shown.id, "fault": fault}

    def may_see_nodes(self, request: web.Request) -> bool:
        """Whether whoever asks may hear of the nodes."""
        is_in = self._addresses.admits(self._address(peer_of(request), request.headers))
        return is_in and self.may(request, _STATUS.wanted(request))

    def check_quick(self, head: Head, path: str, peer: str) -> bool:
        """Let in a GET, PUT or POST of a file on the quick way: whether everybody would be; raises as ``check``."""
        shown = self._enter(peer, head.fields.headers)
        query = b"" if head.plain_path is not None or head.query is None else head.query
        method = head.method.decode()
        wanted = Wanted(READ if method == "GET" else WRITE, path, method=method)
        is_for_all = self.rules.check(wanted, shown, _signed_in(query.decode()), time.time())
        return is_for_all and self._addresses.is_open

    async def mark(self, request: web.Request, response: web.StreamResponse) -> None:
        """Before an answer leaves: have caches keep it from others, if not everybody would have got it."""
        if self.is_open or "Cache-Control" in response.headers:
            return
        need = self._need(request)
        with contextlib.suppress(SfssError):  # it names nothing: so the answer tells of nothing
            if isinstance(need, Need) and not (
                self._addresses.is_open and self.rules.may_anybody(need.wanted(request))
            ):
                response.headers.update(PRIVATE)

    def _judge(self, request: web.Request) -> None:
        need = self._need(request)
        if isinstance(need, Free):
            return
        # Where the quick way has let it in, and then left it for aiohttp, it has been counted.
        is_counted = getattr(request.protocol, "opened", None) is not None
        shown = self._enter(peer_of(request), request.headers, is_counted=is_counted)
        if request.match_info.http_exception is not None or isinstance(need, Within):
            return  # there is no such page, or no such method
        if need is None:
            log.error("%s %s is open to nobody, for nothing says what it needs: this is a bug in sfss",
                      request.method, request.match_info.route.resource)  # fmt: skip
            raise Denied("nobody may do this, for nothing says who may: tell whoever runs sfss")
        self.rules.check(need.wanted(request), shown, _signed(request), time.time())

    def _need(self, request: web.Request) -> Need | Free | Within | None:
        route = request.match_info.route
        need = self._needs.get((route.method, route.resource.canonical)) if route.resource is not None else None
        while isinstance(need, Choice):
            need = need.first if need.is_first(request) else need.second
        return need

    def _enter(self, peer: str, headers: MultiMapping[str], *, is_counted: bool = False) -> Shown:
        """Let in whoever asks, without saying yet what he may. Raises Denied, TooMany."""
        address = self._address(peer, headers)
        if not self._addresses.admits(address):
            raise Denied(f"your address, {address or 'which is none'}, isn't let in here (access.allow, access.deny)")
        shown = self._shown(headers)
        if not is_counted:
            self._count(address, shown)
        return shown

    def _address(self, peer: str, headers: MultiMapping[str]) -> str:
        """Whose it is who asks; the peer's, where no address is heeded."""
        if not (self._heeds_addresses and self._trusted):
            return peer
        return client(Client(peer, "", ""), combined(headers, FIELDS), self._trusted).address

    def _count(self, address: str, shown: Shown) -> None:
        """Whoever shows a key is counted by that, where keys have a rate; all others by their addresses."""
        by_key = shown.id is not None and self._key_rates.rate > 0
        if by_key:
            assert shown.id is not None
            wait, setting = self._key_rates.take(shown.id, time.monotonic()), "key_rate"
        elif self._address_rates.rate > 0:
            wait, setting = self._address_rates.take(client_of(address), time.monotonic()), "address_rate"
        else:
            return
        if wait > 0:
            rate = self._key_rates.rate if by_key else self._address_rates.rate
            whose = "this key" if by_key else f"your address, {address},"
            raise TooMany(f"{whose} may ask {rate:g} times a second here (access.{setting}): wait a little", wait=wait)

    def _shown(self, headers: MultiMapping[str]) -> Shown:
        given = headers.getall("Authorization", ())
        if not given:
            return self.rules.shown(None, 0.0)
        match = _BEARER.fullmatch(given[0]) if len(given) == 1 else None
        if match is None:
            return Shown(fault="Authorization has to be there once, and to be Bearer KEY")
        return self.rules.shown(match[1], time.time())


def _signed(request: web.Request) -> Signed | None:
    return _signed_in(request.rel_url.raw_query_string)


def _signed_in(query: str) -> Signed | None:
    if signing.SIGNATURE not in query and "%" not in query:  # a name may be escaped, too
        return None
    return signing.given(parse_qsl(query, keep_blank_values=True, errors="surrogateescape"))
