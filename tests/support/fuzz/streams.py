"""Hostile streams of serial frames, logs of ticks, and reports."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import tempfile
from pathlib import Path

import numpy as np
from fakes import DATA, FakeClock, FakePlant
from hypothesis import strategies as st

from edge import ticklog
from edge.conditions import Conditions
from edge.errors import UnknownNameError, UserError
from edge.loop import ControlLoop
from edge.loop_report import RunReport
from edge.plants import hil_messages
from edge.plants.frames import ACTION, MAX_PAYLOAD_BYTES, OBSERVATION, RESET, Decoder, encode
from edge.plants.hil import HilPlant
from edge.plants.hil_link import HilError
from edge.policy import Policy
from edge.records import from_plain
from edge.ticklog import LogError
from fuzz import Target
from fuzz.damage import damaged, edited

# Frames.

RNG = np.random.default_rng(0)
STREAMS = [
    b"".join(encode(kind, k, RNG.normal(size=n).astype(np.float32)) for k in range(6))
    for kind, n in ((OBSERVATION, 3), (ACTION, 1), (OBSERVATION, 255), (RESET, 0))
]
headers = st.tuples(st.sampled_from([b"O", b"A", b"R", b"X"]), st.integers(0, 65535), st.binary(max_size=8)).map(
    lambda drawn: b"\xa5\x5a" + drawn[0] + drawn[1].to_bytes(2, "little") + drawn[2]
)
pieces = st.one_of(
    st.binary(max_size=64),
    headers,
    damaged(STREAMS),
    st.sampled_from([*STREAMS, b"\xa5", b"\xa5\x5a", b"\xa5" * 2000, b"\xa5\x5aO\xfe\x03" * 400, bytes(5000)]),
)


def decode(chunks: list[bytes]) -> bool:
    """Feed chunks; what is buffered stays below one frame, and bytes are accounted for."""
    decoder, taken = Decoder(), 0
    for chunk in chunks:
        for frame in decoder.feed(chunk):
            taken += len(encode(frame.kind, frame.sequence, frame.values))
            assert frame.kind in (OBSERVATION, ACTION, RESET)
            assert frame.values.dtype == np.float32
        assert len(decoder._buffer) <= MAX_PAYLOAD_BYTES + 16
    assert taken + decoder.skipped_bytes + len(decoder._buffer) == sum(map(len, chunks))
    return taken > 0


# Logs of ticks.

FOLDER = tempfile.TemporaryDirectory(prefix="fuzz-")
LOG = Path(FOLDER.name) / "ticks.log"


def _run() -> RunReport:
    policy = Policy.load(DATA / "arm-int8.tflite")
    loop = ControlLoop(policy, FakePlant([np.array([0.3, 1.05, 60.0])]), clock=FakeClock(), log=LOG)
    outcome = loop.run(duration_s=0.2)
    return RunReport(
        1, policy.name, "0" * 64, "fake", 0, (1.0,), {"lost": 0}, outcome, policy.runtime, Conditions.now()
    )


REPORT = _run()
LOGGED = LOG.read_bytes()
HEADER = json.loads(LOGGED[: ticklog.HEADER_BYTES])
log_files = st.one_of(
    damaged([LOGGED, LOGGED[: ticklog.HEADER_BYTES]]),
    damaged([LOGGED[:300]]),
    edited([HEADER]).map(lambda header: header.ljust(ticklog.HEADER_BYTES) + LOGGED[ticklog.HEADER_BYTES :]),
)
POLICY = Policy.load(DATA / "arm-int8.tflite")


def read_log(data: bytes) -> bool:
    """What `tfqrl-edge replay` does."""
    LOG.write_bytes(data)
    header, records = ticklog.read(LOG)
    ticklog.replay(POLICY, header, records)
    return True


# Messages of hardware in the loop.


class Silence:
    """A link on which nothing arrives but what the test hands to the plant itself."""

    def send(self, data: bytes) -> bool:
        return True

    def receive(self, until_s: float) -> list[bytes]:
        return []

    def close(self) -> None:
        pass


MESSAGES = [
    hil_messages.encode(hil_messages.Message(kind, k, k // 2, k, 10**9 * k, -1.5, values))
    for k, kind in enumerate(sorted(hil_messages.KINDS))
    for values in (np.zeros(0), np.array([0.3, 1.05, 60.0]), np.array([7.0, 0.0, 0.0, 1.0, 3.0, 2.0]))
]
messages = st.one_of(
    st.binary(max_size=80),
    damaged(MESSAGES),
    st.tuples(
        st.sampled_from(sorted(hil_messages.KINDS)) | st.just(hil_messages.OBSERVATION),
        st.integers(0, 2**64 - 1),
        st.integers(0, 2**32 - 1),
        st.integers(0, 2**64 - 1),
        st.integers(-(2**63), 2**63 - 1),
        st.floats(),
        (st.lists(st.floats(), min_size=3, max_size=3) | st.lists(st.integers(0, 5).map(float), max_size=8)).map(
            lambda v: np.array(v, np.float64)
        ),
    ).map(lambda fields: hil_messages.encode(hil_messages.Message(*fields))),
    st.sampled_from([0, 4096, 4097, 10_000]).map(lambda n: MESSAGES[1][:40] + bytes(8 * n)),
)


def take_messages(arrived: list[bytes]) -> bool:
    """What a plant does with what arrives; each message is counted once, and observations have their shape."""
    plant = HilPlant("tcp://x:1", POLICY.spec, keys="x", timeout_s=0.0)
    plant._link = Silence()  # type: ignore[assignment]
    for data in arrived:
        with contextlib.suppress(hil_messages.MessageError):
            if (message := hil_messages.decode(data)).kind == hil_messages.WELCOME:
                hil_messages.Terms.from_values(message.values)
        plant._take(data)
        with contextlib.suppress(HilError):
            assert plant.read().shape == POLICY.spec.observation.shape
        plant.write(np.zeros(2, np.float32))
    assert plant.received + plant.malformed <= len(arrived)
    assert plant.late + plant.repeated <= plant.received
    return plant.received > 0


# Reports.


def read_report(data: bytes) -> bool:
    """What reads a report of `run --json`."""
    from_plain(RunReport, json.loads(data), "report")
    return True


TARGETS = {
    "serial frames": Target(st.lists(pieces, max_size=6), decode, (), 0.18),
    "messages of hardware in the loop": Target(st.lists(messages, max_size=6), take_messages, (), 0.12),
    "logs of ticks": Target(log_files, read_log, (LogError, UserError), 0.07),
    "reports": Target(
        edited([json.loads(json.dumps(dataclasses.asdict(REPORT)))]),
        read_report,
        (ValueError, UnknownNameError, RecursionError),
        0.03,
    ),
}
