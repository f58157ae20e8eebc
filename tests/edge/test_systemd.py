import os
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fakes import DATA, FakeClock, FakePlant

from edge.errors import UserError
from edge.loop import ControlLoop
from edge.policy import Policy
from edge.systemd import Systemd

MS = 1_000_000
GOOD = np.array([0.3, 1.05, 60.0])


class Listener:
    """The socket that systemd would listen on."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.setblocking(False)

    def heard(self) -> list[str]:
        messages = []
        while True:
            try:
                messages.append(self.socket.recv(4096).decode())
            except BlockingIOError:
                return messages


@pytest.fixture
def listener(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Listener]:
    # Relative, because a socket's path may have at most 107 bytes.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NOTIFY_SOCKET", "notify")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    listener = Listener("notify")
    yield listener
    listener.socket.close()


def drive(clock: FakeClock, plant: FakePlant, *, ticks: int = 10, rate_hz: float = 100.0) -> None:
    policy = Policy.load(DATA / "arm-int8.tflite")
    ControlLoop(policy, plant, rate_hz=rate_hz, clock=clock).run(duration_s=ticks / rate_hz)


def test_a_loop_says_when_it_begins_and_ends(listener: Listener) -> None:
    said_by_tick = {}
    drive(FakeClock(), FakePlant([GOOD], lambda tick: said_by_tick.update({tick: listener.heard()})))
    assert said_by_tick.pop(0) == ["READY=1"]
    assert set(map(tuple, said_by_tick.values())) == {()}
    assert listener.heard() == ["STOPPING=1"]


def test_a_loop_that_ticks_is_alive_every_half_of_the_watchdogs_time(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "60000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    alive = []
    drive(
        FakeClock(),
        FakePlant([GOOD], lambda tick: alive.extend([tick] * listener.heard().count("WATCHDOG=1"))),
        ticks=10,
    )
    # Ticks are 10 ms apart and heard from one later; tick 3 ends 30 ms after the beginning.
    assert alive == [4, 7]
    assert listener.heard() == ["WATCHDOG=1", "STOPPING=1"]


def test_a_loop_that_is_slower_than_half_the_time_is_alive_every_tick(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "150000")
    drive(FakeClock(), FakePlant([GOOD]), ticks=4, rate_hz=10)
    assert listener.heard() == ["READY=1", *["WATCHDOG=1"] * 3, "STOPPING=1"]


def test_a_loop_that_is_stuck_is_silent(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "20000")
    clock, heard = FakeClock(), []

    def stuck(tick: int) -> None:
        if tick == 5:
            listener.heard()
            clock.advance(1000 * MS)
            heard.extend(listener.heard())

    drive(clock, FakePlant([GOOD], stuck))
    assert heard == []


def test_a_loop_that_cannot_begin_is_never_ready(listener: Listener) -> None:
    class Failing(FakePlant):
        def reset(self) -> None:
            raise UserError("no motor")

    drive(FakeClock(), Failing([GOOD]))
    assert listener.heard() == ["STOPPING=1"]


def test_abstract_sockets_are_spoken_to() -> None:
    name = f"tfqrl-test-{os.getpid()}"
    listener = Listener("\0" + name)
    with Systemd({"NOTIFY_SOCKET": f"@{name}"}) as systemd:
        systemd.ready(0)
    assert listener.heard() == ["READY=1", "STOPPING=1"]
    listener.socket.close()


def test_nothing_waits_for_a_systemd_that_does_not_listen(listener: Listener) -> None:
    with Systemd({"NOTIFY_SOCKET": "notify", "WATCHDOG_USEC": "1000"}) as systemd:
        systemd.ready(0)
        for tick in range(10_000):
            systemd.alive(tick)
    assert 1 < len(listener.heard()) < 10_000


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"WATCHDOG_USEC": "1000"},
        {"NOTIFY_SOCKET": ""},
        {"NOTIFY_SOCKET": "nowhere"},
        {"NOTIFY_SOCKET": "notify", "WATCHDOG_USEC": "soon"},
        {"NOTIFY_SOCKET": "notify", "WATCHDOG_USEC": "0"},
        {"NOTIFY_SOCKET": "notify", "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"},
    ],
)
def test_no_sign_of_life_is_due_where_nobody_watches(environment: dict[str, str], listener: Listener) -> None:
    with Systemd(environment) as systemd:
        systemd.ready(0)
        assert systemd.due_ns > 2**62
