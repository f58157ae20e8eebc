"""The workstation's end of hardware in the loop: the server of a simulation."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from edge.errors import UsageError
from edge.files import write_atomically
from edge.plants.hil_link import SERVER, HilError, import_zmq, limit, read_key_pair, secret_file
from edge.records import to_json
from edge.report import counts_text
from tfqrl import envs
from tfqrl.hil_keys import KnownKeys
from tfqrl.hil_simulation import Replies, Simulation

SCHEMA_VERSION = 1
# How soon a signal, or a client's silence, is noticed.
IDLE_S = 0.1
# Where ZeroMQ asks the authenticator about the keys of whoever connects.
DOMAIN = "hil"
# How long who connects may take to show a key. ZeroMQ's own 30 s let anybody fill the process with idle connections.
HANDSHAKE_MS = 2000


@dataclass(frozen=True)
class HilReport:
    """What a server did.

    Attributes:
      schema_version: version of this report's layout.
      env: the environment.
      seed: with which each client's reset seeded it.
      realtime_hz: steps per second; None in lock-step.
      clients: how many were served.
      steps: how many were made.
      returns: return of each finished episode.
      counts: see `Simulation` and `Server`.
    """

    schema_version: int
    env: str
    seed: int
    realtime_hz: float | None
    clients: int
    steps: int
    returns: tuple[float, ...]
    counts: dict[str, int]


def serve(
    env: str,
    *,
    bind: str,
    keys: Path,
    seed: int,
    realtime: bool,
    rate_hz: float | None,
    json: Path | None,
    stop: Callable[[], bool],
) -> None:
    """Simulate `env` for one client after another until `stop` says so; print and, to `json`, write what happened.

    Raises:
      UserError: there is no such environment, or no way to listen; see `envs.make`, `Simulation` and `Server`.
    """
    simulated = envs.make(env)
    try:
        if realtime and rate_hz is None:
            rate_hz = envs.policy_spec(simulated, None).control_rate_hz
            if rate_hz is None:
                raise UsageError(f"{env} names no rate of its own. Give one with --rate HZ.")
        say = partial(print, flush=True)
        simulation = Simulation(simulated, seed=seed, realtime_hz=rate_hz, say=say)
        with Server(simulation, bind, keys, say=say) as server:
            how = "in lock-step" if rate_hz is None else f"in real time, {rate_hz:g} steps per second"
            print(f"Serving {env} at {server.address} {how}; Ctrl-C ends it.", flush=True)
            try:
                server.run(stop)
            finally:
                report = HilReport(
                    SCHEMA_VERSION,
                    env,
                    seed,
                    rate_hz,
                    simulation.clients,
                    simulation.steps,
                    tuple(simulation.returns),
                    server.counts(),
                )
                print(_text(report), flush=True)
                if json is not None:
                    write_atomically(json, to_json(report).encode())
    finally:
        simulated.close()


def _text(report: HilReport) -> str:
    episodes = f"{len(report.returns)} episodes finished"
    if report.returns:
        episodes += f", mean return {sum(report.returns) / len(report.returns):.1f}"
    return f"{report.clients} clients, {report.steps} steps, {episodes}\n{counts_text(report.counts)}"


class Server:
    """A simulation behind a ZeroMQ socket that lets in known keys only.

    Attributes:
      address: where it listens; a port that was left to the system is in it.
      foreign: messages that are not of one part; they are dropped.
    """

    def __init__(self, simulation: Simulation, bind: str, keys: Path, *, say: Callable[[str], None] = print) -> None:
        """Serve `simulation` at `bind` with the keys in `keys`; it listens when it is entered.

        `say` gets a line when a key was refused, in another thread.
        """
        self._simulation, self._bind, self._folder, self._say = simulation, bind, keys, say
        self.address = bind
        self.foreign = 0

    def counts(self) -> dict[str, int]:
        """The simulation's counts, and those of the socket: unknown_keys, foreign."""
        return {**self._simulation.counts(), "unknown_keys": self._known.unknown, "foreign": self.foreign}

    def run(self, stop: Callable[[], bool]) -> None:
        """Serve until `stop` says so, which is asked ten times a second or more."""
        simulation, socket = self._simulation, self._socket
        while not stop():
            if socket.poll(self._wait_ms()):
                # One message at a time, so that a flood of them cannot keep the simulation from its steps.
                parts = socket.recv_multipart()
                if len(parts) == 2:
                    self._send(simulation.receive(parts[0], parts[1], time.monotonic_ns()))
                else:
                    self.foreign += 1
            self._send(simulation.advance(time.monotonic_ns()))

    def __enter__(self) -> Server:
        """Listen.

        Raises:
          HilError: pyzmq or keys are missing, or the address is taken.
          UsageError: the address is none.
        """
        zmq = import_zmq()
        from zmq.auth.thread import ThreadAuthenticator

        if not self._bind.startswith("tcp://"):
            raise UsageError(f"--bind takes an address such as tcp://127.0.0.1:5757; it was given {self._bind!r}.")
        public, secret = read_key_pair(secret_file(self._folder, SERVER))
        self._known = KnownKeys(self._folder, self._say)
        self._context = zmq.Context()
        self._authenticator = ThreadAuthenticator(self._context)
        self._authenticator.start()
        self._authenticator.configure_curve_callback(DOMAIN, self._known)
        self._socket: Any = self._context.socket(zmq.ROUTER)
        limit(self._socket)
        # A client that reconnects is still the same.
        self._socket.router_handover = True
        self._socket.handshake_ivl = HANDSHAKE_MS
        self._socket.curve_server = True
        self._socket.curve_publickey, self._socket.curve_secretkey = public, secret
        # Nobody is let in when the authenticator is not there to ask.
        self._socket.zap_domain = DOMAIN.encode()
        self._socket.zap_enforce_domain = True
        try:
            self._socket.bind(self._bind)
        except zmq.ZMQError as error:
            self.__exit__(None, None, None)
            raise HilError(f"Cannot listen at {self._bind}: {error}. Give another --bind.") from error
        self.address = self._socket.last_endpoint.decode().rstrip("\0")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close; takes half a second at most."""
        self._socket.close()
        self._authenticator.stop()
        self._context.term()

    def _wait_ms(self) -> int:
        due_ns = self._simulation.due_ns
        if due_ns is None:
            return round(IDLE_S * 1e3)
        return max(0, min(round(IDLE_S * 1e3), (due_ns - time.monotonic_ns()) // 1_000_000))

    def _send(self, replies: Replies) -> None:
        # To a client that has gone or takes nothing, a ROUTER drops what it should send, and does not wait.
        for reply in replies:
            self._socket.send_multipart(reply)
