"""The contract of ``sfss.backends.base.Backend``, as tests. Each implementation runs them in a few lines::

    class TestRedis(CasContract, ScanContract):
        @pytest.fixture
        def address(self) -> Address:
            return ...  # where a real one answers

        def client(self, address: Address) -> Backend:
            return RedisNode(address)

``BackendContract`` is for a node without ``cas`` and without ``scan``. The node may be shared: every test has keys of
its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
import uuid
from collections.abc import AsyncIterator

import pytest

from sfss.addresses import Address
from sfss.backends.base import Backend, Listed
from sfss.errors import BadRequest, NodeAway, NodeError, NodeRefused, TooLarge
from sfss.record import PREFIX_SIZE
from sfss.traffic import Observed
from tests.servers import HOST, free_port
from tests.test_record import make

ALL_BYTES = bytes(range(256)) + b"\r\nEND\r\nVALUE /k 0 1\r\n\0"
MIB = 2**20
DAY = 24 * 3600


class BackendContract:
    """What every backend promises."""

    @pytest.fixture
    def address(self) -> Address:
        """Where a real node answers."""
        raise NotImplementedError

    def client(self, address: Address) -> Backend:
        """A client of the node there, not yet started."""
        raise NotImplementedError

    @pytest.fixture
    async def backend(self, address: Address) -> AsyncIterator[Backend]:
        """A client that is connected."""
        backend = self.client(address)
        await backend.start()
        assert backend.away is None
        yield backend
        await backend.close()

    @pytest.fixture
    async def unreachable(self) -> AsyncIterator[Backend]:
        """A client of a node that isn't there."""
        backend = self.client(Address(HOST, free_port(), "nobody"))
        await backend.start()
        yield backend
        await backend.close()

    @pytest.fixture
    def listed(self, backend: Backend) -> Backend:
        """A client that is connected, of a node that doesn't mind being asked for its keys."""
        return backend

    @pytest.fixture
    def key(self) -> bytes:
        """A key that nobody else has."""
        return b"/contract/" + uuid.uuid4().hex.encode()

    # --- what is stored and what comes back ---

    async def test_what_was_set_comes_back(self, backend: Backend, key: bytes) -> None:
        await backend.set(key, b"value")
        assert await backend.get(key) == b"value"

    async def test_what_a_node_answered_is_counted_and_how_long_it_took(self, backend: Backend, key: bytes) -> None:
        assert isinstance(backend, Observed)
        backend.traffic.take()
        await backend.set(key, b"value")
        await backend.get(key)
        taken = backend.traffic.take()
        assert (sum(taken.answers), sum(taken.failures)) == (2, 0)
        assert 0 < taken.seconds < 10

    async def test_a_key_that_nothing_lies_under_gives_none(self, backend: Backend, key: bytes) -> None:
        assert await backend.get(key) is None
        assert await backend.head(key) is None

    async def test_the_last_set_wins(self, backend: Backend, key: bytes) -> None:
        for value in (b"one", b"two", b"", b"three"):
            assert await backend.set(key, value)
            assert await backend.get(key) == value

    async def test_a_record_that_comes_late_is_refused_by_a_node_that_looks(self, backend: Backend, key: bytes) -> None:
        old, new = (make(b"payload", version=version) for version in (7, 8))
        assert await backend.set(key, new)
        assert await backend.set(key, new)
        assert backend.capabilities is not None
        looks = backend.capabilities.versions
        assert await backend.set(key, old) != looks
        assert await backend.get(key) == (new if looks else old)

    async def test_the_same_bytes_can_be_set_again(self, backend: Backend, key: bytes) -> None:
        await backend.set(key, b"same")
        await backend.set(key, b"same")
        assert await backend.get(key) == b"same"

    @pytest.mark.parametrize(
        "value",
        [b"", b"\r\n", ALL_BYTES, b"\0" * 1000, os.urandom(100_000), os.urandom(MIB)],
        ids=lambda v: str(len(v)),
    )
    async def test_any_bytes_come_back_as_they_were(self, backend: Backend, key: bytes, value: bytes) -> None:
        await backend.set(key, value)
        assert await backend.get(key) == value

    @pytest.mark.parametrize(
        "shape", ["/{}", "/кошка/{}.jpg", "/猫/{}", "/🐈{}", "#{}/0", "/%20%25{}", "/{}\\$'\"", "/{}\u0085\u3000"]
    )
    async def test_keys_may_hold_any_visible_bytes(self, backend: Backend, shape: str) -> None:
        key = shape.format(uuid.uuid4().hex).encode()
        await backend.set(key, b"here")
        assert await backend.get(key) == b"here"
        assert await backend.delete(key)

    @pytest.mark.parametrize("letter", ["x", "я", "猫"])
    async def test_keys_may_have_250_bytes(self, backend: Backend, key: bytes, letter: str) -> None:
        key += letter.encode() * ((250 - len(key)) // len(letter.encode()))
        key = key.ljust(250, b"-")
        await backend.set(key, b"here")
        assert await backend.get(key) == b"here"
        assert await backend.delete(key)

    @pytest.mark.parametrize("bad", [b"", b"/" * 251, b"/a b", b"/a\r\nflush_all", b"/a\n", b"/a\0", b"/\x7f", b"/a\t"])
    async def test_a_key_that_would_be_misread_is_refused_and_nothing_is_sent(
        self, backend: Backend, key: bytes, bad: bytes
    ) -> None:
        await backend.set(key, b"here")
        for call in (backend.get(bad), backend.head(bad), backend.set(bad, b"flush_all\r\n"), backend.delete(bad)):
            with pytest.raises(BadRequest, match="key"):
                await call
        assert await backend.get(key) == b"here"

    async def test_head_brings_no_bytes_that_were_not_stored(self, backend: Backend, key: bytes) -> None:
        """What a header is, is ``sfss.record``'s; where it can't be told from the rest, all may come, or nothing."""
        await backend.set(key, b"not a record")
        head = await backend.head(key)
        assert head is not None
        assert b"not a record".startswith(head)

    async def test_delete_says_whether_there_was_something(self, backend: Backend, key: bytes) -> None:
        await backend.set(key, b"value")
        assert await backend.delete(key) is True
        assert await backend.get(key) is None
        assert await backend.delete(key) is False

    async def test_what_was_deleted_can_be_set_again(self, backend: Backend, key: bytes) -> None:
        await backend.set(key, b"value")
        await backend.delete(key)
        await backend.set(key, b"value")
        assert await backend.get(key) == b"value"

    async def test_a_value_that_is_too_large_is_refused_and_the_old_one_stays(
        self, backend: Backend, key: bytes
    ) -> None:
        assert backend.capabilities
        await backend.set(key, b"old")
        with pytest.raises(TooLarge, match=str(backend.address)) as caught:
            await backend.set(key, bytes(backend.capabilities.largest_value + 1))
        assert caught.value.limit == backend.capabilities.largest_value
        assert await backend.get(key) == b"old"

    async def test_what_is_set_with_an_expiry_ends_where_the_node_has_it_and_else_is_refused(
        self, backend: Backend, key: bytes
    ) -> None:
        assert backend.capabilities
        if not backend.capabilities.ttl:
            with pytest.raises(NodeRefused, match="without expiry"):
                await backend.set(key, b"value", expiry=1)
            assert await backend.get(key) is None
            return
        await backend.set(key, b"value", expiry=1)
        await backend.set(key + b"/later", b"value", expiry=40 * DAY)
        assert await backend.get(key) == b"value"
        await self.gone(backend, key)
        assert await backend.get(key + b"/later") == b"value"

    async def gone(self, backend: Backend, key: bytes) -> None:
        """Wait until it is."""
        deadline = time.monotonic() + 5
        while await backend.get(key) is not None:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)

    async def test_stats_are_text_by_name(self, backend: Backend) -> None:
        stats = await backend.stats()
        assert stats["pid"].isdigit()
        assert stats["version"]

    # --- many at once ---

    async def test_a_thousand_calls_at_once_each_get_their_own_answer(self, backend: Backend, key: bytes) -> None:
        async def call(number: int) -> None:
            mine = key + b"/%d" % number
            assert await backend.get(mine) is None
            await backend.set(mine, mine * (number % 50))
            assert await backend.get(mine) == mine * (number % 50)
            assert await backend.delete(mine) is True
            assert await backend.get(mine) is None

        await asyncio.gather(*(call(number) for number in range(1000)))

    async def test_a_call_that_is_cancelled_anywhere_harms_no_other(self, backend: Backend, key: bytes) -> None:
        """Cancelled after each number of steps of the loop, and at random times."""
        for number in range(20):
            await backend.set(key + b"/%d" % number, b"%d" % number * 1000)

        async def cancelled(number: int) -> None:
            mine = key + b"/%d" % (number % 20)
            calls = (backend.get(mine), backend.head(mine), backend.delete(mine + b"-"), backend.set(mine + b"+", mine))
            call = asyncio.ensure_future(calls[number % 4])
            for other in (other for other in calls if other is not calls[number % 4]):
                other.close()
            if number < 80:
                for _ in range(number // 4):
                    await asyncio.sleep(0)
            else:
                await asyncio.sleep(random.random() / 100)
            call.cancel()
            await asyncio.wait([call])

        async def undisturbed(number: int) -> None:
            await asyncio.sleep(random.random() / 100)
            assert await backend.get(key + b"/%d" % (number % 20)) == b"%d" % (number % 20) * 1000
            assert await backend.get(key + b"-") is None

        for _ in range(3):
            await asyncio.gather(*(call(number) for number in range(160) for call in (cancelled, undisturbed)))
        assert backend.away is None

    # --- all keys ---

    async def test_all_keys_are_told_some_at_a_time_each_once(self, listed: Backend, key: bytes) -> None:
        mine = {key + b"/%d" % number for number in range(2100)} | {key + "/猫\\%20\u3000".encode()}
        await asyncio.gather(*(listed.set(name, b"value") for name in mine))
        gone = {key + b"/%d" % number for number in range(0, 2100, 3)}
        await asyncio.gather(*(listed.delete(name) for name in gone))
        walk = listed.keys()
        batches = [batch async for batch in walk]
        assert all(1 <= len(batch) <= 1000 for batch in batches)
        told = [name for batch in batches for name in batch if name.startswith(key)]
        assert sorted(told) == sorted(mine - gone)

    async def test_keys_that_stay_are_told_whatever_changes_meanwhile(self, listed: Backend, key: bytes) -> None:
        stay = {key + b"/stay/%d" % number for number in range(1500)}
        await asyncio.gather(*(listed.set(name, b"value") for name in stay))
        done = asyncio.Event()

        async def change() -> None:
            number = 0
            while not done.is_set():
                number += 1
                await listed.set(key + b"/change/%d" % (number % 500), b"%d" % number)
                await listed.delete(key + b"/change/%d" % ((number + 250) % 500))
                await listed.get(key + b"/stay/%d" % (number % 1500))

        changing = asyncio.create_task(change())
        for _ in range(3):
            walk = listed.keys()
            told = [name async for batch in walk for name in batch if name.startswith(key + b"/stay/")]
            assert sorted(told) == sorted(stay)
        done.set()
        await changing

    async def test_who_leaves_off_a_walk_harms_nobody_and_the_next_one_is_whole(
        self, listed: Backend, key: bytes
    ) -> None:
        mine = {key + b"/%d" % number for number in range(1200)}
        await asyncio.gather(*(listed.set(name, b"value") for name in mine))
        for _ in range(3):
            async with contextlib.aclosing(listed.keys()) as walk:
                assert await anext(walk)
        for steps in range(0, 40, 3):
            walking = asyncio.ensure_future(anext(listed.keys()))
            for _ in range(steps):
                await asyncio.sleep(0)
            walking.cancel()
            await asyncio.wait([walking])
        walk = listed.keys()
        assert mine <= {name async for batch in walk for name in batch}
        assert await listed.get(key + b"/1") == b"value"

    async def test_a_node_without_scan_says_so(self, backend: Backend) -> None:
        assert backend.capabilities
        if not backend.capabilities.scan:
            with pytest.raises(NodeRefused, match="without scan"):
                await backend.scan(b"", 1)

    # --- when it isn't there ---

    async def test_away_says_why(self, backend: Backend, unreachable: Backend) -> None:
        assert backend.away is None
        assert unreachable.away
        assert "refused" in unreachable.away

    async def test_calls_to_a_node_that_is_away_fail_at_once_and_name_it(
        self, unreachable: Backend, key: bytes
    ) -> None:
        began = time.perf_counter()
        for _ in range(100):
            for call in (unreachable.get(key), unreachable.set(key, b"x"), unreachable.delete(key)):
                with pytest.raises(NodeAway, match=str(unreachable.address)) as caught:
                    await call
                assert caught.value.node == str(unreachable.address)
        assert (time.perf_counter() - began) / 300 < 0.01

    async def test_lists_of_a_node_that_is_away_fail_at_once_and_name_it(self, unreachable: Backend) -> None:
        for call in (lambda: unreachable.scan(b"", 1), lambda: anext(unreachable.keys())):
            with pytest.raises(NodeAway, match=str(unreachable.address)):
                await call()

    async def test_stats_of_a_node_that_is_away_name_it(self, unreachable: Backend) -> None:
        with pytest.raises(NodeError, match=str(unreachable.address)):
            await unreachable.stats()

    async def test_close_fails_what_is_in_flight(self, address: Address, key: bytes) -> None:
        backend = self.client(address)
        await backend.start()
        calls = [asyncio.ensure_future(backend.get(key + b"/%d" % number)) for number in range(100)]
        await asyncio.sleep(0)
        began = time.perf_counter()
        await backend.close()
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert time.perf_counter() - began < 0.5
        assert {type(answer) for answer in answers} & {type(None), NodeAway} == set(), "nothing was answered yet"
        assert all(isinstance(answer, NodeError) and "stopping" in str(answer) for answer in answers)

    async def test_after_close_it_is_away_and_calls_fail(self, address: Address, key: bytes) -> None:
        backend = self.client(address)
        await backend.start()
        await backend.stats()
        await backend.close()
        assert backend.away
        for call in (backend.get(key), backend.stats(), backend.scan(b"", 1)):
            with pytest.raises(NodeAway):
                await call
        with pytest.raises(NodeAway):
            await anext(backend.keys())
        await backend.close()

    async def test_closing_without_having_started_is_no_error(self, address: Address) -> None:
        await self.client(address).close()


class CasContract(BackendContract):
    """What a backend with ``cas`` promises besides."""

    async def test_add_stores_only_where_nothing_is(self, backend: Backend, key: bytes) -> None:
        assert await backend.add(key, b"first") is True
        assert await backend.add(key, b"second") is False
        assert await backend.get(key) == b"first"

    async def test_gets_brings_the_value_and_a_token(self, backend: Backend, key: bytes) -> None:
        assert await backend.gets(key) is None
        await backend.set(key, ALL_BYTES)
        found = await backend.gets(key)
        assert found is not None
        assert found.data == ALL_BYTES

    async def test_replace_stores_while_the_token_holds(self, backend: Backend, key: bytes) -> None:
        token = await self._set(backend, key, b"one")
        assert await backend.replace(key, b"two", token) is True
        assert await backend.get(key) == b"two"
        assert await backend.replace(key, b"three", token) is False
        assert await backend.get(key) == b"two"

    async def test_a_set_of_the_same_bytes_makes_the_token_void(self, backend: Backend, key: bytes) -> None:
        token = await self._set(backend, key, b"same")
        await backend.set(key, b"same")
        assert await backend.replace(key, b"other", token) is False

    async def test_nothing_is_replaced_where_nothing_is(self, backend: Backend, key: bytes) -> None:
        token = await self._set(backend, key, b"one")
        await backend.delete(key)
        assert await backend.replace(key, b"two", token) is False
        await backend.set(key, b"one")
        assert await backend.replace(key, b"two", token) is False, "what was made anew is not what the token came with"

    async def test_of_many_writers_with_one_token_one_wins(self, backend: Backend, key: bytes) -> None:
        token = await self._set(backend, key, b"before")
        won = await asyncio.gather(*(backend.replace(key, b"%d" % writer, token) for writer in range(50)))
        assert won.count(True) == 1
        assert await backend.get(key) == b"%d" % won.index(True)

    async def test_of_many_who_add_one_wins(self, backend: Backend, key: bytes) -> None:
        won = await asyncio.gather(*(backend.add(key, b"%d" % writer) for writer in range(50)))
        assert won.count(True) == 1
        assert await backend.get(key) == b"%d" % won.index(True)

    async def test_what_replace_gave_an_expiry_ends(self, backend: Backend, key: bytes) -> None:
        token = await self._set(backend, key, b"before")
        assert await backend.replace(key, b"after", token, expiry=1)
        assert await backend.get(key) == b"after"
        await self.gone(backend, key)
        assert await backend.add(key, b"again") is True

    async def test_remove_takes_away_what_the_token_came_with(self, backend: Backend, key: bytes) -> None:
        token = await self._set(backend, key, b"one")
        assert await backend.remove(key, token) is True
        assert await backend.get(key) is None
        assert await backend.gets(key) is None
        assert await backend.delete(key) is False
        assert await backend.add(key, b"two") is True

    async def test_remove_takes_away_nothing_else(self, backend: Backend, key: bytes) -> None:
        token = await self._set(backend, key, b"same")
        await backend.set(key, b"same")
        assert await backend.remove(key, token) is False
        assert await backend.get(key) == b"same"
        await backend.delete(key)
        assert await backend.remove(key, token) is False

    async def test_of_one_token_either_a_removal_or_a_replacement_is_made(self, backend: Backend, key: bytes) -> None:
        for number in range(50):
            mine = key + b"/%d" % number
            token = await self._set(backend, mine, b"before")
            calls = [backend.remove(mine, token), backend.replace(mine, b"after", token), backend.remove(mine, token)]
            random.shuffle(calls)
            won = await asyncio.gather(*calls)
            assert won.count(True) == 1
            assert await backend.get(mine) in (None, b"after")

    async def test_removals_of_a_key_that_would_be_misread_are_refused(self, backend: Backend) -> None:
        for bad in (b"", b"/a b", b"/a\r\nflush_all", b"/" * 251):
            with pytest.raises(BadRequest, match="key"):
                await backend.remove(bad, 1)

    async def test_a_value_that_is_too_large_for_add_and_replace_is_refused(self, backend: Backend, key: bytes) -> None:
        assert backend.capabilities
        token = await self._set(backend, key, b"old")
        large = bytes(backend.capabilities.largest_value + 1)
        for call in (backend.add(key, large), backend.replace(key, large, token)):
            with pytest.raises(TooLarge):
                await call
        assert await backend.get(key) == b"old"

    async def _set(self, backend: Backend, key: bytes, data: bytes) -> int:
        await backend.set(key, data)
        found = await backend.gets(key)
        assert found is not None
        return found.token


class ScanContract(BackendContract):
    """What a backend with ``scan`` and ``cas`` promises besides."""

    async def test_a_walk_tells_all_items_in_order_with_their_headers(self, backend: Backend, key: bytes) -> None:
        items = {key + b"/%d" % number: make(b"x" * number, version=number + 1) for number in range(700)}
        items[key + b"/other"] = b"no record"
        await asyncio.gather(*(backend.set(name, data) for name, data in items.items()))
        told = await self.walked(backend, key, 100)
        assert [item.key for item in told] == sorted(items)
        for item in told:
            assert item.size == len(items[item.key])
            assert items[item.key].startswith(item.header)
            assert (len(item.header) > PREFIX_SIZE) == (item.key != key + b"/other")
        heads = await backend.heads(key + b"/", len(told))
        assert list(zip(heads.keys, heads.headers, strict=True)) == [(item.key, item.header) for item in told]

    async def walked(self, backend: Backend, prefix: bytes, count: int) -> list[Listed]:
        """All items under ``prefix``/, so many at a time."""
        told: list[Listed] = []
        while True:
            some = await backend.scan(told[-1].key if told else prefix + b"/", count)
            assert len(some) <= count
            told += some
            if len(some) < count or not told[-1].key.startswith(prefix):
                return [item for item in told if item.key.startswith(prefix)]

    async def test_a_scan_begins_behind_a_key_be_it_there_or_not(self, backend: Backend, key: bytes) -> None:
        for letter in (b"a", b"b", b"d", "猫".encode(), b"\\", b"%20"):
            await backend.set(key + letter, b"value")
        assert (await backend.scan(b"", 1))[0].key <= key + b"%20"
        for after, then in ((b"", b"%20"), (b"%20", b"\\"), (b"\\", b"a"), (b"a", b"b"), (b"b", b"d"), (b"c", b"d")):
            assert (await backend.scan(key + after, 1))[0].key == key + then
        assert (await backend.scan(key + b"d\0 \n", 1))[0].key == key + "猫".encode(), "any bytes may be begun behind"
        assert await backend.scan(b"\xff" * 250, 10_000) == []

    async def test_a_scan_ends_before_a_key_be_it_there_or_not(self, backend: Backend, key: bytes) -> None:
        for letter in (b"a", b"b", b"bb", b"d"):
            await backend.set(key + letter, b"value")

        async def told(until: bytes) -> list[bytes]:
            return [item.key.removeprefix(key) for item in await backend.scan(key, 10, until)]

        assert await told(key + b"b") == [b"a"]
        assert await told(key + b"b\0") == await told(key + b"ba") == [b"a", b"b"]
        assert await told(key + b"c") == await told(key + b"d") == [b"a", b"b", b"bb"]
        assert await told(key) == await told(key[:-1]) == []
        await backend.set(whole := key + b"x" * (250 - len(key)), b"value")
        assert (await told(whole + b"y"))[-1] == whole.removeprefix(key)
        assert (await told(whole))[-1] == b"d"

    async def test_of_many_ranges_it_is_known_which_have_anything(self, backend: Backend, key: bytes) -> None:
        names = [key + b"/%03d" % number for number in range(0, 200, 2)]
        await asyncio.gather(*(backend.set(name, make(b"x")) for name in names))
        ranges = [(key + b"/%03d" % number, key + b"/%03d" % (number + 2)) for number in range(-1, 250)]
        there = [any(after < name < until for name in names) for after, until in ranges]
        assert await backend.any_in(ranges) == there
        assert await backend.any_in([]) == []

    async def test_a_scans_token_is_good_for_replace_and_remove(self, backend: Backend, key: bytes) -> None:
        for number in range(4):
            await backend.set(key + b"/%d" % number, b"value")
        told = await self.walked(backend, key, 10)
        await backend.set(told[2].key, b"changed")
        assert await backend.replace(told[0].key, b"other", told[0].token) is True
        assert await backend.remove(told[1].key, told[1].token) is True
        assert await backend.replace(told[2].key, b"other", told[2].token) is False
        assert await backend.remove(told[2].key, told[2].token) is False
        assert [item.key for item in await self.walked(backend, key, 10)] == [told[n].key for n in (0, 2, 3)]

    async def test_what_has_expired_or_was_removed_is_not_told(self, backend: Backend, key: bytes) -> None:
        await backend.set(key + b"/stays", b"value")
        await backend.set(key + b"/expires", b"value", expiry=1)
        await backend.set(key + b"/goes", b"value")
        await backend.delete(key + b"/goes")
        await self.gone(backend, key + b"/expires")
        assert [item.key for item in await self.walked(backend, key, 10)] == [key + b"/stays"]

    @pytest.mark.parametrize(("after", "count"), [(b"", 0), (b"", 10_001), (b"", -1), (b"/" * 251, 1)])
    async def test_what_cannot_be_asked_for_is_refused(self, backend: Backend, after: bytes, count: int) -> None:
        with pytest.raises(BadRequest, match="list"):
            await backend.scan(after, count)

    async def test_scans_at_once_each_get_their_own_and_hold_up_no_request(self, backend: Backend, key: bytes) -> None:
        names = sorted(key + b"/%04d" % number for number in range(2000))
        await asyncio.gather(*(backend.set(name, make(b"", version=1)) for name in names))

        async def scan(start: int) -> None:
            told = await backend.scan(names[start], 500)
            assert [item.key for item in told][: 2000 - start - 1] == names[start + 1 : start + 501]

        scans = asyncio.gather(*(scan(random.randrange(2000)) for _ in range(40)))
        gets = 0
        while not scans.done():
            assert await backend.get(names[0]) is not None
            gets += 1
        await scans
        assert gets > 40

    async def test_after_a_scan_cancelled_anywhere_the_next_one_is_right(self, backend: Backend, key: bytes) -> None:
        names = sorted(key + b"/%03d" % number for number in range(600))
        await asyncio.gather(*(backend.set(name, make(b"", version=1)) for name in names))
        for number in range(60):
            scans = [asyncio.ensure_future(backend.scan(names[start], 300)) for start in (0, 100)]
            if number < 40:
                for _ in range(number):
                    await asyncio.sleep(0)
            else:
                await asyncio.sleep(random.random() / 100)
            scans[number % 2].cancel()
            await asyncio.wait(scans)
            assert [item.key for item in await backend.scan(names[200], 300)] == names[201:501]
            other, start = scans[1 - number % 2], (100, 0)[number % 2]
            assert [item.key for item in other.result()] == names[start + 1 : start + 301]
