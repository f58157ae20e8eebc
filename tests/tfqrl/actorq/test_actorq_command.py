"""`tfqrl actorq`, with real processes, some of which are killed."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tfqrl.cli import main
from tfqrl.runs import Run

SUPPORT = Path(__file__).parents[2] / "support"
TASK = ("td3", "--env", "Pendulum-v1", "--no-zoo", "--hidden", "16", "--learning-starts", "200", "--batch-size", "32")


class Command:
    """`tfqrl actorq`, running.

    Attributes:
      mark: what all its processes have in their environment.
    """

    def __init__(self, *words: str) -> None:
        self.mark = uuid.uuid4().hex
        environment = os.environ | {
            "TFQRL_TEST": self.mark,
            "PYTHONPATH": f"{SUPPORT}:{os.environ.get('PYTHONPATH', '')}",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tfqrl", "actorq", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )

    def processes(self, title: str = "") -> list[int]:
        """Those of it that are alive and called so."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                environment, words = (path / "environ").read_bytes(), (path / "cmdline").read_bytes()
                dead = (path / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
            except OSError:
                continue
            if self.mark.encode() in environment and title.encode() in words and not dead:
                found.append(int(path.name))
        return found

    def ended(self, timeout_s: float = 240.0) -> tuple[int, str]:
        """Its exit code and what it printed."""
        printed, _ = self.process.communicate(timeout=timeout_s)
        return self.process.returncode, printed

    def kill(self) -> None:
        for pid in (self.process.pid, *self.processes()):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait()


@pytest.fixture
def command() -> Iterator[Callable[..., Command]]:
    begun: list[Command] = []

    def begin(*words: str) -> Command:
        begun.append(Command(*words))
        return begun[-1]

    yield begin
    for each in begun:
        each.kill()


def until(condition: Callable[[], Any], timeout_s: float = 180.0) -> Any:
    """What `condition` returns, once that is something."""
    deadline_s = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline_s
        time.sleep(0.2)
    return found


def steps(path: Path) -> int:
    """How far a run is, as far as it has been told."""
    metrics = Run.open(path).metrics() if (path / "config.json").exists() else []
    return int(metrics[-1]["steps"]) if metrics else 0


@pytest.mark.long
def test_actors_and_learners_that_die_or_hang_are_replaced_and_all_steps_accounted_for(
    command: Callable[..., Command], tmp_path: Path
) -> None:
    path = tmp_path / "run"
    going = command(
        *(*TASK, "--steps", "60000", "--actors", "3", "--samples-per-insert", "1", "--patience-s", "5"),
        *("--checkpoint-period-s", "1", "--out", str(path)),
    )
    until(lambda: steps(path) > 1000)
    os.kill(going.processes("ActorProcess")[0], signal.SIGKILL)
    before = steps(path)
    until(lambda: steps(path) > before + 1000)
    hangs = going.processes("ActorProcess")[0]
    os.kill(hangs, signal.SIGSTOP)
    until(lambda: hangs not in going.processes())
    until(lambda: (path / "checkpoint.npz").exists())
    os.kill(going.processes("LearnerProcess")[0], signal.SIGKILL)
    code, printed = going.ended()
    assert code == 0, printed
    assert "died. Another one takes its place." in printed
    assert "was silent. Another one takes its place." in printed
    assert "The learner died. Another one goes on from the checkpoint at" in printed
    assert "DO NOT ADD UP" not in printed
    report = json.loads((path / "actorq.json").read_text())
    assert report["replaced"] == {"died": 1, "silent": 1}
    assert report["learners"] == 1
    account = report["account"]
    assert account["lost"] > 0
    assert account["stepped"] == sum(account[name] for name in ("inserted", "lost", "refused", "unfinished"))
    assert account["inserted"] >= 60000
    assert main(["convert", str(path), "--recipe", "float32", "--out", str(tmp_path / "policy.tflite")]) == 0
    until(lambda: not going.processes(), 20.0)


@pytest.mark.long
def test_rollouts_are_made_again_by_who_takes_the_place_of_a_dead_actor(
    command: Callable[..., Command], tmp_path: Path
) -> None:
    path = tmp_path / "run"
    going = command(
        *("ppo", "--env", "CartPole-v1", "--no-zoo", "--num-envs", "4", "--rollout-steps", "64", "--actors", "2"),
        *("--steps", "60000", "--patience-s", "5", "--out", str(path)),
    )
    until(lambda: steps(path) > 1000)
    os.kill(going.processes("RolloutProcess")[0], signal.SIGKILL)
    before = steps(path)
    until(lambda: steps(path) > before + 1000)
    os.kill(going.processes("RolloutProcess")[0], signal.SIGSTOP)
    code, printed = going.ended()
    assert code == 0, printed
    report = json.loads((path / "actorq.json").read_text())
    assert report["replaced"] == {"died": 1, "silent": 1}
    account = report["account"]
    assert account["stepped"] == account["inserted"] + account["lost"]
    assert account["inserted"] == report["steps"] == steps(path)
    assert [each["environment"] > 0 for each in report["by_actor"]] == [True, True]
    metrics = Run.open(path).metrics()[-1]
    assert 0 < metrics["actors/environment"] < 1
    assert 0 < metrics["learner/wait"] < 1
    assert Run.open(path).metrics()[-1]["return"] > 2 * Run.open(path).metrics()[10]["return"]
    until(lambda: not going.processes(), 20.0)


@pytest.mark.long
def test_ctrl_c_saves_a_checkpoint_and_leaves_no_process_behind(
    command: Callable[..., Command], tmp_path: Path
) -> None:
    path = tmp_path / "run"
    going = command(*TASK, "--steps", "1000000", "--actors", "2", "--out", str(path))
    until(lambda: steps(path) > 500)
    assert len(going.processes()) > 3
    os.kill(going.process.pid, signal.SIGINT)
    code, printed = going.ended(60.0)
    assert code == 130, printed
    assert "--resume" in printed
    until(lambda: not going.processes(), 20.0)
    reached = int(Run.open(path).load_checkpoint()["steps"])
    assert reached > 500
    again = command("td3", "--out", str(path), "--resume", "--steps", str(reached + 1000))
    code, printed = again.ended()
    assert code == 0, printed
    assert json.loads((path / "actorq.json").read_text())["steps"] >= 1000


@pytest.mark.long
def test_a_command_that_is_killed_leaves_no_process_behind(command: Callable[..., Command], tmp_path: Path) -> None:
    path = tmp_path / "run"
    going = command(*TASK, "--steps", "1000000", "--actors", "2", "--out", str(path))
    until(lambda: steps(path) > 300)
    os.kill(going.process.pid, signal.SIGKILL)
    until(lambda: not going.processes("Process."), 30.0)
    # Ray's own agents look now and then whether their parent is alive.
    until(lambda: not going.processes(), 180.0)


@pytest.mark.long
def test_an_environment_that_only_fails_ends_the_training(command: Callable[..., Command], tmp_path: Path) -> None:
    going = command(
        *("td3", "--env", "toys/Diverges-v0", "--env-module", "toy_envs", "--steps", "1000", "--actors", "1"),
        *("--learning-starts", "100", "--out", str(tmp_path / "run")),
    )
    code, printed = going.ended()
    assert code == 1, printed
    assert "toys/Diverges-v0 returned NaN or infinity" in printed
    assert "replaced 3 times" in printed
    assert "Traceback" not in printed
    until(lambda: not going.processes(), 20.0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "Name an algorithm"),
        (
            ("ppo", "--env", "CartPole-v1", "--no-zoo", "--num-envs", "6"),
            "--num-envs 6 must be a multiple of --actors 4",
        ),
        (("ppo", "--env", "CartPole-v1", "--push-every", "9"), "a policy for each rollout of --rollout-steps"),
        (("td4",), "Did you mean 'td3'"),
        (("td3", "--env", "Pendulum-v1", "--actors", "0"), "--actors must be at least 1"),
        (("td3", "--env", "Pendulum-v1", "--actor-precision", "int4"), "int4"),
        (("td3", "--env", "Pendulum-v1", "--samples-per-insert", "0"), "--samples-per-insert must be above 0"),
        (("td3", "--env", "Pendulum-v1", "--num-envs", "2"), "Give --actors"),
        (("td3", "--env", "Pendulum-v1", "--compress", "qat"), "--init-from RUN --compress METHOD"),
        (("td3", "--env", "Pendulum-v1", "--samples-per-insert", "inf"), "--samples-per-insert must be a finite"),
        (("td3", "--env", "Pendulum-v1", "--cpu-watts", "nan"), "--cpu-watts must be a finite number"),
        (("td3", "--env", "CartPole-v1"), "td3"),
        (("td3", "--resume"), "--resume needs the run's folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_is_refused_before_anything_begins(
    words: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        code = main(["actorq", *words])
    except SystemExit as end:
        code = end.code
    assert code == 2
    printed = capsys.readouterr()
    assert message in printed.out + printed.err
    assert not list(tmp_path.iterdir())


def test_a_run_is_resumed_by_the_command_that_began_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tfqrl.agents.td3 import TD3Config

    run = Run.create(tmp_path / "run", "td3", TD3Config(env="Pendulum-v1"))
    assert main(["actorq", "td3", "--out", str(run.path), "--resume"]) == 2
    assert "go on with: tfqrl train td3" in capsys.readouterr().err
    (run.path / "distribution.json").write_text('{"actors": 2}')
    assert main(["actorq", "td3", "--out", str(run.path), "--resume", "--actors", "3"]) == 2
    assert "actors 2; --resume keeps a run's options, so it cannot become 3" in capsys.readouterr().err
    assert main(["train", "td3", "--out", str(run.path), "--resume"]) == 2
    assert "go on with: tfqrl actorq td3" in capsys.readouterr().err


# In a process of its own: what Ray has read of its settings it does not read again for other tests.
CLUSTER = """
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
nodes = [cluster.add_node(num_cpus=2) for _ in range(3)]
print(cluster.address, flush=True)
input()
cluster.remove_node(nodes[0], allow_graceful=False)
input()
cluster.shutdown()
"""


@pytest.mark.long
def test_a_cluster_that_loses_a_node_goes_on(command: Callable[..., Command], tmp_path: Path) -> None:
    path = tmp_path / "run"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, "-c", CLUSTER], text=True, bufsize=1, **pipes) as cluster:
        assert cluster.stdin is not None
        assert cluster.stdout is not None
        try:
            address = next(line for line in cluster.stdout if ":" in line).strip()
            going = command(
                *(*TASK, "--steps", "30000", "--actors", "3", "--samples-per-insert", "1"),
                *("--checkpoint-period-s", "1", "--ray", address, "--out", str(path)),
            )
            until(lambda: (path / "checkpoint.npz").exists() and steps(path) > 2000)
            cluster.stdin.write("\n")
            code, printed = going.ended()
        finally:
            cluster.stdin.write("\n\n")
    assert code == 0, printed
    report = json.loads((path / "actorq.json").read_text())
    # Four processes on three nodes of two: one node had at least one.
    assert report["learners"] + report["replaced"].get("died", 0) >= 1
    account = report["account"]
    assert account["stepped"] == sum(account[name] for name in ("inserted", "lost", "refused", "unfinished"))
    assert account["inserted"] >= 30000
