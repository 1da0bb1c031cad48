"""Paths come in the order of their bytes, however keys are escaped, and however few of them are read at a time."""

from __future__ import annotations

import bisect
import itertools
import sys

from hypothesis import example, given, settings
from hypothesis import strategies as st

from sfss import paths
from sfss.cluster import pathorder
from sfss.cluster.pathorder import Range, all_behind, behind, doubtful, from_path, needs_sorting, without

# Whatever sorts elsewhere as a key, and its neighbours; characters of every length.
LETTERS = (
    " !#$%&0a~\u00a1\u00a0\u0800\u1680\u1681\u1fff\u2000\u2005\u200a"
    "\u200b\u2028\u2029\u202f\u205f\u2060\u3000\u3001\U0001f600"
)
SEGMENTS = st.text(st.sampled_from(LETTERS), min_size=1, max_size=4)
PATHS = st.builds("/".join, st.lists(SEGMENTS, min_size=1, max_size=3)) | st.builds(
    lambda segment, length: segment + "a" * length, SEGMENTS, st.integers(200, 248)
)
AFTER = PATHS | st.just("") | st.builds(lambda path: path + "a" * 700, PATHS)
SETS = st.sets(PATHS, max_size=40)


class Node:
    """All keys, of which a slice is read at a time; counts how many were read."""

    def __init__(self, names: set[str]) -> None:
        self.keys = sorted(key for key in map(paths.unhashed, names) if len(key) <= 250)
        self.reads = 0

    def read(self, within: Range, count: int) -> list[bytes]:
        self.reads += 1
        start = bisect.bisect_right(self.keys, within.after)
        return self.keys[start : min(start + count, bisect.bisect_left(self.keys, within.until))]


def path_of(key: bytes) -> str:
    found = paths.path_of(key)
    assert found is not None
    return found


def listed(node: Node, prefix: str, after: str, count: int, delimiter: bool = False) -> list[str]:
    """What is told of the node, in the order in which it is; of a folder, its name only, where there are folders."""
    beginning = paths.unhashed(prefix)
    if after < prefix:
        agenda = [all_behind(beginning)]
    else:
        below = not (delimiter and after.endswith("/"))
        last = paths.unhashed(after)
        empty = {position for position, r in doubtful(beginning, last).items() if not node.read(r, 1)}
        agenda = from_path(beginning, last, empty, below=below)
    told: list[str] = []
    while agenda:
        within = agenda.pop(0)
        keys = node.read(within, count)
        left = behind(beginning, within, keys) if len(keys) == count else []
        if len(keys) == count and not needs_sorting(beginning, keys):
            assert left == [Range(keys[-1], within.until)], "the short way is the long one"
        agenda[:0] = left
        for path in sorted(path_of(key) for key in keys if not any(r.after < key < r.until for r in left)):
            name = path
            if delimiter and (end := path.find("/", len(prefix)) + 1):
                name = path[:end]
                agenda = without(agenda, paths.unhashed(name))
            if not told or told[-1] != name:
                told.append(name)
    return told


@settings(max_examples=150, deadline=None)
@given(SETS, st.integers(1, 8))
@example({"a b", "a!", "a!b", "a%", "a&", "a", "a\u00a0", "a\u3000b", "aa", "a\u30a2"}, 1)
def test_any_set_of_paths_is_listed_in_the_order_of_its_bytes(names: set[str], count: int) -> None:
    names = {name for name in names if len(paths.unhashed(name)) <= 250}
    assert listed(Node(names), "", "", count) == sorted(names, key=str.encode)


@settings(max_examples=150, deadline=None)
@given(SETS, st.text(st.sampled_from(LETTERS + "/"), max_size=3), AFTER, st.integers(1, 8))
def test_behind_any_path_and_under_any_prefix_too(names: set[str], prefix: str, after: str, count: int) -> None:
    node = Node(names)
    wanted = sorted(map(path_of, node.keys), key=str.encode)
    for start in {after, *wanted[:3]}:
        if start < prefix or start.startswith(prefix):
            expected = [name for name in wanted if name.startswith(prefix) and name > start]
            assert listed(node, prefix, start, count) == expected


@settings(max_examples=100, deadline=None)
@given(SETS, st.sampled_from(["", "a", "a/", " ", "%"]), st.integers(1, 8))
def test_folders_are_told_once_at_their_place(names: set[str], prefix: str, count: int) -> None:
    node = Node(names)
    wanted = []
    for path in sorted(map(path_of, node.keys), key=str.encode):
        if path.startswith(prefix):
            end = path.find("/", len(prefix)) + 1
            wanted.append(path[:end] if end else path)
    wanted = [name for name, _ in itertools.groupby(wanted)]
    assert listed(node, prefix, "", count, delimiter=True) == wanted
    for number, name in enumerate(wanted):
        assert listed(node, prefix, name, count, delimiter=True) == wanted[number + 1 :]


def test_a_folder_is_passed_over_at_once() -> None:
    node = Node({f"{folder}/{file}" for folder in ("a", "b", "c d") for file in range(1000)})
    assert listed(node, "", "", 10, delimiter=True) == ["a/", "b/", "c d/"]
    assert node.reads < 10


def test_names_without_escapes_are_read_once_and_in_one_go() -> None:
    node = Node({f"photos/{number:04}.jpg" for number in range(1000)})
    assert len(listed(node, "photos/", "", 100)) == 1000
    assert node.reads == 11


def test_names_with_blanks_are_read_little_more_often() -> None:
    node = Node(
        {f"my photos/{folder:02} at the sea/no {number:02}.jpg" for folder in range(50) for number in range(20)}
    )
    assert len(listed(node, "", "", 100)) == 1000
    assert node.reads < 30


def test_all_whitespace_is_known_that_a_path_can_have() -> None:
    escaped = [
        chr(code)
        for code in range(sys.maxunicode + 1)
        if chr(code).isspace() and not 0 <= code < 0x20 and not 0x7F <= code < 0xA0
    ]
    assert [" ", *"".join(pathorder._WHITESPACE)] == escaped
    for run in pathorder._WHITESPACE:
        assert [ord(c) for c in run] == list(range(ord(run[0]), ord(run[-1]) + 1))
