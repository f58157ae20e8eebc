"""Hostile policy files: damaged ones, ones with other papers, other golden pairs, and archives made to do harm.

The model itself is protected by its SHA-256, so what passes the reader has a model that was converted: its policy is
built too.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
from typing import Any

import numpy as np
from fakes import DATA
from hypothesis import strategies as st

from edge import artifact
from edge.errors import ArtifactError, UserError
from edge.loop import ControlLoop
from edge.policy import Policy
from edge.records import to_json
from edge.report import info_text
from fuzz import Target
from fuzz.damage import FIELDS, damaged, edited

FILES = [path.read_bytes() for path in sorted(DATA.glob("*.tflite"))]
WHOLE = [artifact.from_bytes(data) for data in FILES]
MEMBERS: list[dict[str, bytes]] = []
for _data in FILES:
    with zipfile.ZipFile(io.BytesIO(_data)) as _archive:
        MEMBERS.append({name: _archive.read(name) for name in _archive.namelist()})
MANIFESTS = [json.loads(members[artifact.MANIFEST]) for members in MEMBERS]


def read(data: bytes) -> bool:
    """What `tfqrl-edge info` and `Policy.load` do, and building a loop."""
    source = artifact.from_bytes(data)
    info_text(source, len(data)).encode()
    to_json(source.manifest)
    policy = Policy.from_artifact(source)
    try:
        ControlLoop(policy, None)  # type: ignore[arg-type]
    except UserError:
        return False
    return True


def packed(i: int, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    file.write(WHOLE[i].flatbuffer)
    with zipfile.ZipFile(file, "a", method) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data, method)
    return file.getvalue()


indices = st.integers(0, len(FILES) - 1)
DAMAGED = damaged(FILES, [source.manifest.flatbuffer_bytes for source in WHOLE])
RANDOM = st.tuples(st.binary(max_size=4), st.binary(max_size=400)).map(
    lambda drawn: drawn[0].ljust(4) + b"TFL3" + drawn[1]
)

# A manifest of a policy goes into that policy's file, so that most of what is wrong is in the edits.
PAPERS = indices.flatmap(
    lambda i: edited([MANIFESTS[i]]).map(lambda text: packed(i, {**MEMBERS[i], artifact.MANIFEST: text}))
)

# Headers of .npy files are Python literals.
LITERALS = (
    "{'descr': '<f4', 'fortran_order': False, 'shape': (32, 3), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 3), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 3), }",
    "{'descr': '<f4', 'fortran_order': True, 'shape': (3, 32), }",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (16, 3), }",
    "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
    "{'descr': '<U0', 'fortran_order': False, 'shape': (99999999999,), }",
    "{'descr': [('a', '<f4', (9999, 9999))], 'fortran_order': False, 'shape': (3,), }",
    "{'descr': '<f4', 'fortran_order': 7, 'shape': (True, 3.0), }",
    "{'descr': '<f4', 1: False, 'shape': (32, 3), }",
    "(" * 200,
    "-" * 5000 + "1",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (32L, 3L), }",
    "{'descr': 'M8[q]', 'fortran_order': False, 'shape': (32, 3), }",
    '"""',
    "\\",
)


def npy(header: str, body: bytes, version: int) -> bytes:
    text = header.encode("latin1", "replace") + b"\n"
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + length + text + body


def npz(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return file.getvalue()


def saved(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


headers = st.one_of(
    st.sampled_from(LITERALS),
    st.tuples(
        st.sampled_from(LITERALS), st.integers(0, 60), st.text("()[]{},:'\"<>fiOU0123456789-jLeTrue ", max_size=6)
    ).map(lambda drawn: drawn[0][: drawn[1]] + drawn[2] + drawn[0][drawn[1] + 1 :]),
)
arrays = st.one_of(
    st.tuples(headers, st.binary(max_size=64), st.sampled_from([1, 2, 3, 9])).map(lambda drawn: npy(*drawn)),
    st.tuples(
        st.lists(st.integers(0, 40), max_size=4), st.sampled_from(["f4", "f8", "f2", ">f4", "i8", "u1", "?", "c8"])
    ).map(lambda drawn: saved(np.ones(drawn[0], drawn[1])) if np.prod(drawn[0]) < 1e5 else b""),
    st.tuples(st.sampled_from([np.nan, np.inf, 1e30, -1e38, 5e-324]), st.integers(0, 95)).map(
        lambda drawn: saved(np.where(np.arange(96) == drawn[1], drawn[0], 0.0).astype(np.float32).reshape(32, 3))
    ),
)
PAIRS = st.one_of(
    st.tuples(indices, arrays, arrays).map(
        lambda drawn: packed(
            drawn[0], {**MEMBERS[drawn[0]], artifact.GOLDEN: npz(observations=drawn[1], actions=drawn[2])}
        )
    ),
    indices.flatmap(
        lambda i: damaged([MEMBERS[i][artifact.GOLDEN]]).map(
            lambda golden: packed(i, {**MEMBERS[i], artifact.GOLDEN: golden})
        )
    ),
)


def bomb(i: int, name: str, n_bytes: int, filling: bytes) -> bytes:
    """A member that is small in the file and large outside it."""
    return packed(i, {**MEMBERS[i], name: filling * (n_bytes // len(filling))})


def doubled(i: int, name: str, times: int) -> bytes:
    """The central directory names one member many times."""
    data = packed(i, MEMBERS[i])
    begin = data.index(b"PK\x01\x02")
    end = data.index(b"PK\x05\x06")
    entry_begin = data.index(b"PK\x01\x02", begin + 4) if name == artifact.GOLDEN else begin
    entry_end = end if name == artifact.GOLDEN else data.index(b"PK\x01\x02", begin + 4)
    extra = data[entry_begin:entry_end] * times
    n = 2 + times
    tail = bytearray(data[end:])
    struct.pack_into("<HHI", tail, 8, n % 65536, n % 65536, end - begin + len(extra))
    return data[:end] + extra + bytes(tail)


def with_fields(i: int, place: int, field: bytes) -> bytes:
    """A number in one of the archive's headers is another."""
    data = bytearray(FILES[i])
    starts = [k for magic in (b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06") for k in _all(data, magic)]
    start = starts[place % len(starts)] + 4 + (place // 64) % 42
    data[start : start + len(field)] = field
    return bytes(data)


def _all(data: bytes, part: bytes) -> list[int]:
    found, k = [], data.find(part)
    while k >= 0:
        found.append(k)
        k = data.find(part, k + 1)
    return found


names = st.sampled_from([artifact.MANIFEST, artifact.GOLDEN])
fields = st.tuples(indices, st.integers(0, 2**16), st.sampled_from(FIELDS)).map(lambda drawn: with_fields(*drawn))
harmful = st.one_of(
    st.tuples(
        indices,
        names,
        st.sampled_from([2**20, 2**21, 2**21 + 8, 2**24, 2**24 + 8]),
        st.sampled_from([b"\0", b"[", b"{}", b"[],", b'"', b"9", b'{"a":', b" ", b'["a",', b"1,"]),
    ).map(lambda drawn: bomb(*drawn)),
    st.tuples(indices, names, st.sampled_from([1, 2, 100, 1100, 60_000])).map(lambda drawn: doubled(*drawn)),
    st.tuples(indices, st.sampled_from(["../manifest.json", "/manifest.json", "MANIFEST.JSON", "a/golden.npz"])).map(
        lambda drawn: packed(drawn[0], {drawn[1]: b"x", **MEMBERS[drawn[0]]})
    ),
    st.tuples(indices, st.sampled_from([zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, zipfile.ZIP_STORED])).map(
        lambda drawn: packed(drawn[0], MEMBERS[drawn[0]], drawn[1])
    ),
)
# Bombs take long to make: one in fifty.
ARCHIVES = st.integers(0, 49).flatmap(lambda k: harmful if k == 0 else fields)

TARGETS = {
    "damaged policy files": Target(DAMAGED, read, (ArtifactError,), 0.30),
    "random bytes": Target(RANDOM, read, (ArtifactError,), 0.05),
    "manifests": Target(PAPERS, read, (ArtifactError,), 0.10),
    "golden pairs": Target(PAIRS, read, (ArtifactError,), 0.07),
    "archives": Target(ARCHIVES, read, (ArtifactError,), 0.08),
}
