"""Damage to bytes and to JSON, for any format."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

# Numbers that break things, as fields of 1, 2, 4 and 8 bytes.
EDGES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63, 2**64 - 1)
FIELDS = tuple(number.to_bytes(n, "little") for number in EDGES for n in (1, 2, 4, 8) if number < 2 ** (8 * n))

operations = st.tuples(
    st.sampled_from(["flip", "set", "field", "delete", "repeat", "cut", "splice"]),
    st.integers(0, 2**20),
    st.integers(1, 64),
    st.binary(min_size=1, max_size=16),
)


def damaged(seeds: Sequence[bytes], begins: Sequence[int] | None = None) -> st.SearchStrategy[bytes]:
    """One of `seeds` with up to six operations done to it; most of them after the place that `begins` names for it."""
    begins = [0] * len(seeds) if begins is None else begins

    def damage(drawn: tuple[int, bool, list[tuple[str, int, int, bytes]]]) -> bytes:
        i, everywhere, todo = drawn
        data = bytearray(seeds[i])
        begin = 0 if everywhere else begins[i]
        for what, where, n, rubbish in todo:
            place = begin + where % max(1, len(data) - begin)
            if what == "flip" and place < len(data):
                data[place] ^= 1 << (n % 8)
            elif what == "set":
                data[place : place + len(rubbish)] = rubbish
            elif what == "field":
                field = FIELDS[where % len(FIELDS)]
                data[place : place + len(field)] = field
            elif what == "delete":
                del data[place : place + n]
            elif what == "repeat":
                data[place:place] = data[place : place + n] * (1 + where % 5)
            elif what == "cut":
                del data[place:]
            else:
                other = seeds[where % len(seeds)]
                data[place : place + n] = other[where % len(other) :][: 4 * n]
        return bytes(data)

    return st.tuples(
        st.integers(0, len(seeds) - 1),
        st.integers(0, 3).map(lambda k: k == 0),
        st.lists(operations, min_size=1, max_size=6),
    ).map(damage)


leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.sampled_from([0, -1, 2**31, 2**63, 10**400, -0.0, 1e308, 5e-324, float("nan"), float("inf"), -float("inf")]),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["", "\x00", "\x1b[2J", "\ud800", "../../x", "/etc/passwd", "{}", "%s", "x" * 10_000]),
    # Values that mean something where they stand.
    st.sampled_from(["float32", "uint8", "equivalent"]),
)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


def nested(depth: int) -> str:
    """JSON so deep that it cannot be made by `json.dumps`."""
    return "[" * depth + "]" * depth


edits = st.tuples(
    st.sampled_from(["replace", "replace", "delete", "add", "rename", "swap", "lengthen", "nest"]),
    st.integers(0, 2**16),
    values,
    st.sampled_from([2, 100, 500, 990, 1000, 5000, 100_000]),
)
MARK = "@nested@"


def edited(plains: Sequence[Any]) -> st.SearchStrategy[bytes]:
    """JSON of one of `plains` with up to four edits that keep it JSON."""
    texts = [json.dumps(plain) for plain in plains]

    def edit(drawn: tuple[int, list[tuple[str, int, Any, int]]]) -> bytes:
        i, todo = drawn
        root: Any = [json.loads(texts[i])]
        depth = 0
        for what, where, value, deep in todo:
            places = list(_places(root))
            parent, key = places[where % len(places)]
            if what == "replace":
                parent[key] = value
            elif what == "delete" and parent is not root:
                del parent[key]
            elif what == "add" and isinstance(parent[key], dict):
                parent[key][f"key{where}"] = value
            elif what == "rename" and isinstance(parent, dict):
                parent[f"{key}x"] = parent.pop(key)
            elif what == "swap":
                other, name = places[(where // 7) % len(places)]
                parent[key] = json.loads(json.dumps(other[name]))
            elif what == "lengthen" and isinstance(parent[key], list) and len(parent[key]) < 100:
                parent[key] = parent[key] * min(deep, 1000)
            elif what == "nest":
                parent[key], depth = MARK, deep
            if not root:
                root = [None]
        return json.dumps(root[0]).replace(f'"{MARK}"', nested(depth)).encode()

    return st.tuples(st.integers(0, len(plains) - 1), st.lists(edits, min_size=1, max_size=4)).map(edit)


def _places(parent: Any) -> Any:
    """Every (container, key) of a tree, its root in a list of one."""
    keys = parent.keys() if isinstance(parent, dict) else range(len(parent))
    for key in keys:
        yield parent, key
        if isinstance(parent[key], (dict, list)):
            yield from _places(parent[key])
