"""Keys and sockets, with real CURVE over loopback."""

import contextlib
import shutil
import socket
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_envs  # noqa: F401  (registers the toys)
from fakes import DATA, HurriedClock

from edge.artifact import ActionSpec, ObservationSpec, PolicySpec
from edge.errors import OutputError, UsageError
from edge.loop import ControlLoop
from edge.plants.gym import GymPlant
from edge.plants.hil import HilPlant
from edge.plants.hil_link import MAX_FRAME_BYTES, QUEUE, HilError, Link, limit, read_key_pair
from edge.plants.hil_messages import ACTION, HELLO, MAX_VALUES, TAKEN, WELCOME, Message, decode, encode
from edge.policy import Policy
from edge.safety import Safety
from tfqrl import envs, hil
from tfqrl.hil import Server
from tfqrl.hil_keys import KnownKeys, make_keys
from tfqrl.hil_simulation import Replies, Simulation

zmq = pytest.importorskip("zmq", reason="needs pyzmq: pip install pyzmq")

COUNT = PolicySpec(
    ObservationSpec((2,), (None, None), (None, None)), ActionSpec((2,), (-2.0, 0.0), (2.0, 1.0)), None, None
)
# Far longer than anything takes; what waits for less says so.
LONG_S = 20.0


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    make_keys(folder)
    return folder


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys of a client that the server does not know, who knows the server."""
    folder = tmp_path_factory.mktemp("strangers")
    make_keys(folder)
    return folder


def simulation(env: str = "toys/Count-v0", kind: type[Simulation] = Simulation, **options: Any) -> Simulation:
    return kind(envs.make(env), say=lambda line: None, **options)


@contextlib.contextmanager
def serving(simulated: Simulation, keys: Path, **options: Any) -> Iterator[Server]:
    """A server in a thread, at a port that the system chose."""
    stop = threading.Event()
    with Server(simulated, "tcp://127.0.0.1:*", keys, **options) as server:
        thread = threading.Thread(target=server.run, args=(stop.is_set,))
        thread.start()
        try:
            yield server
        finally:
            stop.set()
            thread.join()


class Peer:
    """A socket with any keys at all, and the events of its connection."""

    def __init__(self, address: str, server_public: bytes, public: bytes, secret: bytes) -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        limit(self.socket)
        self.socket.maxmsgsize = -1
        self.socket.linger = 0
        self.socket.curve_serverkey = server_public
        self.socket.curve_publickey, self.socket.curve_secretkey = public, secret
        self.monitor = self.socket.get_monitor_socket()
        self.socket.connect(address)

    def wait_for(self, event: Any) -> Any:
        from zmq.utils.monitor import recv_monitor_message

        deadline_s = time.monotonic() + LONG_S
        while self.monitor.poll(LONG_S * 1e3):
            message = recv_monitor_message(self.monitor)
            if message["event"] == event:
                return message
            assert time.monotonic() < deadline_s, event
        raise AssertionError(event)

    def answer(self) -> Message:
        assert self.socket.poll(LONG_S * 1e3)
        return decode(self.socket.recv())

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *details: object) -> None:
        self.socket.disable_monitor()
        self.socket.close()
        self.monitor.close()
        self.context.term()


def known(server: Server, keys: Path) -> Peer:
    public, secret = read_key_pair(keys / "client.key_secret")
    return Peer(server.address, read_key_pair(keys / "server.key_secret")[0], public, secret)


def test_secret_keys_are_for_their_owner_only_and_are_not_replaced_unasked(tmp_path: Path) -> None:
    files = make_keys(tmp_path / "keys")
    assert sorted(path.name for path in files) == ["client.key", "client.key_secret", "server.key", "server.key_secret"]
    assert sorted(files) == sorted((tmp_path / "keys").iterdir())
    modes = {path.suffix: stat.S_IMODE(path.stat().st_mode) for path in files}
    assert modes == {".key": 0o644, ".key_secret": 0o600}
    before = [path.read_bytes() for path in files]
    files[0].unlink()
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700
    with pytest.raises(UsageError, match=r"There are keys already: .*--force"):
        make_keys(tmp_path / "keys")
    assert [path.read_bytes() for path in files[1:]] == before[1:]
    make_keys(tmp_path / "keys", force=True)
    assert all(new.read_bytes() != old for new, old in zip(files, before))


def test_keys_that_cannot_be_written_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="Cannot write keys to"):
        make_keys(tmp_path / "file" / "keys")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("server.key", None, "There is no key .*server.key that can be read. Make keys with `tfqrl hil-keys"),
        ("client.key_secret", None, "There is no key"),
        ("client.key_secret", "rubbish", "holds no CURVE key"),
        ("client.key_secret", 'public-key = "tooshort"\n', "holds no CURVE key"),
        ("client.key_secret", 'public-key = "\xff\xfe~~"\n', "holds no CURVE key"),
        ("client.key_secret", f'public-key = "{"1" * 40}"\n', "holds no secret key"),
        ("server.key", f'public-key = "{"1" * 45}"\n', "one has 32 bytes"),
    ],
)
def test_missing_and_damaged_keys_are_named(tmp_path: Path, name: str, text: str | None, message: str) -> None:
    make_keys(tmp_path)
    (tmp_path / name).unlink()
    if text is not None:
        (tmp_path / name).write_text(text, encoding="latin-1")
    with pytest.raises(HilError, match=message), HilPlant("tcp://127.0.0.1:9", COUNT, keys=tmp_path):
        raise AssertionError


def test_a_server_without_keys_or_with_an_address_that_it_cannot_have_does_not_start(
    keys: Path, tmp_path: Path
) -> None:
    with pytest.raises(HilError, match="Make keys"), Server(simulation(), "tcp://127.0.0.1:*", tmp_path):
        raise AssertionError
    make_keys(tmp_path)
    (tmp_path / "client.key").unlink()
    with (
        pytest.raises(HilError, match="has no client's public key"),
        Server(simulation(), "tcp://127.0.0.1:*", tmp_path),
    ):
        raise AssertionError
    with pytest.raises(UsageError, match="--bind takes an address"), Server(simulation(), "here", keys):
        raise AssertionError
    with (
        serving(simulation(), keys) as server,
        pytest.raises(HilError, match=r"Cannot listen at .* in use"),
        Server(simulation(), server.address, keys),
    ):
        raise AssertionError


def test_an_address_that_is_none_is_a_usage_error(keys: Path) -> None:
    with pytest.raises(UsageError, match="is no address to connect to"), HilPlant("localhost", COUNT, keys=keys):
        raise AssertionError


def test_a_policy_drives_a_simulation_over_curve_as_it_does_the_plant_gym(keys: Path) -> None:
    policy = Policy.load(DATA / "lever-int8.tflite")
    returns = []
    with serving(simulation("Pendulum-v1", seed=5), keys) as server:
        far = HilPlant(server.address, policy.spec, keys=keys, timeout_s=LONG_S, connect_timeout_s=LONG_S)
        for plant in (GymPlant("Pendulum-v1", policy.spec, seed=5), far):
            with plant:
                report = ControlLoop(policy, plant, rate_hz=100, clock=HurriedClock()).run(duration_s=4.5)
                assert (report.ticks, report.failsafes) == (450, {})
                returns.append(list(plant.returns))
        # 450 actions and the failsafe action, and the observation of the reset.
        assert {name: n for name, n in far.counts().items() if n} == {"received": 452}
        assert not any(server.counts().values())
    assert len(returns[0]) == 2
    assert returns[0] == returns[1]


class Unreliable(Simulation):
    """A man in the middle: every third message of the server's is lost, every fourth is sent twice."""

    sent = 0

    def receive(self, peer: bytes, data: bytes, now_ns: int) -> Replies:
        replies = []
        for reply in super().receive(peer, data, now_ns):
            self.sent += 1
            replies += [reply] * (0 if self.sent % 3 == 0 else 2 if self.sent % 4 == 0 else 1)
        return replies


def test_lost_and_repeated_messages_are_survived_over_curve(keys: Path) -> None:
    simulated = simulation(kind=Unreliable)
    with (
        serving(simulated, keys) as server,
        HilPlant(server.address, COUNT, keys=keys, timeout_s=0.3, connect_timeout_s=LONG_S) as plant,
    ):
        plant.reset()
        counts = []
        for _ in range(8):
            with contextlib.suppress(HilError):
                counts.append(plant.read()[0])
            plant.write(np.zeros(2))
    # Count ends after five steps. On a machine that stands still for a moment more is asked for again, not less.
    assert counts == [0, 1, 2, 3, 4, 0, 1, 2]
    assert plant.asked_again >= 3
    assert plant.repeated >= 1
    assert simulated.repeated >= 3
    assert (plant.lost, simulated.lost) == (0, 0)


def test_a_client_without_a_known_key_gets_nothing(keys: Path, strangers: Path) -> None:
    simulated = simulation()
    server_public = read_key_pair(keys / "server.key_secret")[0]
    with serving(simulated, keys) as server:
        with Peer(server.address, server_public, *read_key_pair(strangers / "client.key_secret")) as peer:
            peer.socket.send(encode(Message(HELLO)))
            refusal = peer.wait_for(zmq.EVENT_HANDSHAKE_FAILED_AUTH)
            assert refusal["value"] == 400
            assert not peer.socket.poll(0)
        assert server.counts()["unknown_keys"] >= 1
        # Nor does one without CURVE.
        with zmq.Context() as context, context.socket(zmq.DEALER) as plain:
            plain.linger = 0
            plain.connect(server.address)
            plain.send(encode(Message(HELLO)))
            assert not plain.poll(200)
        assert simulated.clients == 0
        with known(server, keys) as peer:
            peer.socket.send(encode(Message(HELLO)))
            assert peer.answer().kind == WELCOME, "and the others are served"


def test_a_client_whose_key_was_refused_says_so_and_the_server_too(keys: Path, strangers: Path, tmp_path: Path) -> None:
    shutil.copy(keys / "server.key", tmp_path)
    shutil.copy(strangers / "client.key_secret", tmp_path)
    said: list[str] = []
    with serving(simulation(), keys, say=said.append) as server:
        for _ in range(2):
            stranger = HilPlant(server.address, COUNT, keys=tmp_path, connect_timeout_s=1.0)
            with (
                pytest.raises(HilError, match=rf"refused the key of {tmp_path}/client.key_secret\. .* as NAME.key"),
                stranger,
            ):
                raise AssertionError
        assert server.counts()["unknown_keys"] == 2
    public = read_key_pair(strangers / "client.key_secret")[0].decode()
    assert f"refused a client with the public key {public}, which is in no .key file of {keys}" in said


def test_refusals_are_said_once_in_a_while_however_many_there_are(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    known_keys = KnownKeys(keys, said.append)
    times = iter([10.0, 10.5, 10.9, 11.0, 11.1])
    monkeypatch.setattr("tfqrl.hil_keys.time.monotonic", lambda: next(times))
    assert not any(known_keys.callback("hil", b"%d" % i) for i in range(5))
    assert [line.split(",")[0][-1] for line in said] == ["0", "3"]
    assert known_keys.unknown == 5


def test_who_connects_and_shows_no_key_is_cut_off(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hil, "HANDSHAKE_MS", 50)
    with serving(simulation(), keys) as server:
        host, port = server.address.removeprefix("tcp://").split(":")
        with socket.create_connection((host, int(port)), timeout=LONG_S) as idle:
            while idle.recv(4096):
                pass


def test_a_server_with_another_key_or_none_at_all_is_an_error_in_time(keys: Path, strangers: Path) -> None:
    simulated = simulation()
    with serving(simulated, keys) as server:
        impostor = HilPlant(server.address, COUNT, keys=strangers, connect_timeout_s=0.3)
        with pytest.raises(HilError, match=r"No answer from .* Check that `tfqrl hil-serve` runs .* keys"), impostor:
            raise AssertionError
        address = server.address
    assert simulated.clients == 0
    with pytest.raises(HilError, match="No answer"), HilPlant(address, COUNT, keys=keys, connect_timeout_s=0.1):
        raise AssertionError


def test_a_second_client_is_told_that_the_server_is_taken(keys: Path) -> None:
    with serving(simulation(), keys) as server:
        first = HilPlant(server.address, COUNT, keys=keys, timeout_s=LONG_S, connect_timeout_s=LONG_S)
        second = HilPlant(server.address, COUNT, keys=keys, connect_timeout_s=LONG_S)
        with first:
            first.reset()
            with pytest.raises(HilError, match="serves another client"), second:
                raise AssertionError
            assert first.read()[0] == 0
        # Goodbye and the next greeting come from different connections, in any order.
        deadline_s = time.monotonic() + LONG_S
        while True:
            try:
                with second:
                    break
            except HilError:
                assert time.monotonic() < deadline_s


def test_too_large_a_message_costs_its_sender_the_connection_and_nobody_else(keys: Path) -> None:
    with serving(simulation(), keys) as server:
        with known(server, keys) as peer:
            peer.wait_for(zmq.EVENT_HANDSHAKE_SUCCEEDED)
            peer.socket.send(encode(Message(ACTION, 1, values=np.zeros(MAX_VALUES))))
            peer.socket.send(encode(Message(HELLO)))
            assert peer.answer().kind == WELCOME, "the largest message is not too large"
            peer.socket.send(bytes(MAX_FRAME_BYTES + 1))
            peer.wait_for(zmq.EVENT_DISCONNECTED)
        with known(server, keys) as peer:
            peer.socket.send(encode(Message(HELLO)))
            # The one before was cut off without a goodbye.
            assert peer.answer().kind == TAKEN


def test_messages_of_several_parts_and_rubbish_are_dropped_and_counted(keys: Path) -> None:
    with serving(simulation(), keys) as server, known(server, keys) as peer:
        peer.socket.send_multipart([b"a", b"b"])
        peer.socket.send(b"rubbish")
        peer.socket.send(b"")
        peer.socket.send(encode(Message(HELLO)))
        assert peer.answer().kind == WELCOME
        counts = server.counts()
    assert (counts["foreign"], counts["malformed"]) == (1, 2)


class Deaf(Simulation):
    """Greets and resets, then says nothing more."""

    def receive(self, peer: bytes, data: bytes, now_ns: int) -> Replies:
        return [] if decode(data).kind == ACTION else super().receive(peer, data, now_ns)


def test_writing_from_another_thread_while_a_read_waits_is_safe(keys: Path) -> None:
    with (
        serving(simulation(kind=Deaf), keys) as server,
        HilPlant(server.address, COUNT, keys=keys, timeout_s=0.5, connect_timeout_s=LONG_S) as plant,
    ):
        plant.reset()
        plant.write(np.zeros(2))
        done = threading.Event()

        def write() -> None:
            while not done.is_set():
                plant.write(np.zeros(2))

        thread = threading.Thread(target=write)
        thread.start()
        try:
            with pytest.raises(HilError):
                plant.read()
        finally:
            done.set()
            thread.join()
    assert plant._sequence > 10


def test_a_server_that_is_gone_stops_the_loop_in_time_with_its_cause(keys: Path) -> None:
    policy = Policy.load(DATA / "lever-int8.tflite")
    with contextlib.ExitStack() as server_stack:
        server = server_stack.enter_context(serving(simulation("Pendulum-v1"), keys))
        plant = HilPlant(server.address, policy.spec, keys=keys, timeout_s=0.01, connect_timeout_s=LONG_S)
        written: list[float] = []
        write = plant.write

        def write_and_leave(action: Any) -> Any:
            written.append(float(action[0]))
            if len(written) == 5:
                server_stack.close()
            return write(action)

        plant.write = write_and_leave  # type: ignore[method-assign]
        with plant:
            # More ticks than a queue holds: neither they nor the last write may raise or wait.
            safety = Safety("zero", stop_after=QUEUE + 10)
            loop = ControlLoop(policy, plant, rate_hz=100, clock=HurriedClock(), safety=safety)
            report = loop.run(duration_s=10)
            assert plant.unsent > 0
    assert (report.stopped_by, report.exit_code) == ("plant error", 14)
    assert any("sent no observation" in text for text in report.plant_errors)
    assert written[-QUEUE - 11 :] == [0.0] * (QUEUE + 11)


def test_what_was_written_last_still_leaves_when_the_plant_is_closed(keys: Path) -> None:
    simulated = simulation()
    with serving(simulated, keys) as server:
        for i in range(20):
            with HilPlant(server.address, COUNT, keys=keys, timeout_s=LONG_S, connect_timeout_s=LONG_S) as plant:
                plant.reset()
                plant.write(np.zeros(2))
            deadline_s = time.monotonic() + LONG_S
            while simulated.steps <= i or simulated._peer is not None:
                assert time.monotonic() < deadline_s
                time.sleep(0.001)
    assert simulated.steps == 20


def test_a_link_takes_no_more_than_its_queue_when_nobody_listens(keys: Path) -> None:
    link = Link("tcp://127.0.0.1:9", keys)
    sent = sum(link.send(b"x") for _ in range(10 * QUEUE))
    link.close()
    assert QUEUE <= sent <= 2 * QUEUE


def test_in_real_time_the_simulation_goes_on_by_itself(keys: Path) -> None:
    with (
        serving(simulation("Pendulum-v1", realtime_hz=200.0), keys) as server,
        HilPlant(server.address, PENDULUM, keys=keys, timeout_s=LONG_S, connect_timeout_s=LONG_S) as plant,
    ):
        plant.reset()
        observations = [plant.read() for _ in range(10)]
    assert len({tuple(observation) for observation in observations}) == 10


PENDULUM = PolicySpec(ObservationSpec((3,), (None,) * 3, (None,) * 3), ActionSpec((1,), (-2.0,), (2.0,)), 20.0, None)
