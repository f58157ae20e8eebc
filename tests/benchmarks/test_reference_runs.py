import fcntl
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import reference_runs
from reference_runs import Job, Runner, commands, jobs, plan, short, thinned, trained_s

from tfqrl import zoo

TINY = Job("ppo", "CartPole-v1", 2048, 10)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("runs", "results"):
        (tmp_path / name).mkdir()
    return tmp_path / "runs", tmp_path / "results"


def pretend(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """Jobs run this instead of trainings; FOLDER is the run's."""
    monkeypatch.setattr(
        reference_runs, "commands", lambda job, folder: [["-c", program.replace("FOLDER", f"{str(folder)!r}")]]
    )
    monkeypatch.setattr(reference_runs, "outcome", lambda job, folder: {"returns": [1.0, 2.0]})


def test_every_planned_training_is_tuned_and_uses_no_seed_of_tuning() -> None:
    assert len({job.name for job in jobs()}) == len(jobs())
    assert {job.algorithm for job in jobs()} == set(zoo.algorithms())
    for job in jobs():
        assert job.env in zoo.environments(job.algorithm), job.name
        assert job.seed >= 10
        assert job.library in ("tfqrl", "actorq") or job.algorithm in ("td3", "sac", "a2c")


def test_every_published_figure_is_of_a_task_that_is_run() -> None:
    tasks = {(job.algorithm, job.env) for job in jobs()}
    for figure in plan()["published"]:
        assert (figure["algorithm"], figure["env"]) in tasks
        assert set(figure) - {"spread"} == {"algorithm", "env", "steps", "return", "source"}


@pytest.mark.parametrize(
    ("steps", "text"), [(300, "300"), (20_000, "20k"), (1_500_000, "1.5M"), (3_000_000, "3M"), (123_456, "123456")]
)
def test_numbers_of_steps_are_short(steps: int, text: str) -> None:
    assert short(steps) == text


def test_names_are_those_of_files() -> None:
    assert Job("d4pg", "dmc:walker-stand", 300_000, 10).name == "d4pg-dmc-walker-stand-300k-s10"
    assert Job("td3", "HalfCheetah-v5", 300_000, 10, "stable-baselines3").name == (
        "stable-baselines3-td3-HalfCheetah-v5-300k-s10"
    )
    assert Job("ppo", "HalfCheetah-v5", 1_000_000, 10, options="--vec envpool").name == (
        "ppo-HalfCheetah-v5-1M-vec-envpool-s10"
    )


def test_a_curve_keeps_at_most_100_points_and_the_last() -> None:
    curve = [(step, float(step)) for step in range(1, 1003)]
    kept = thinned(curve)
    assert len(kept) <= 100
    assert kept[-1] == (1002, 1002.0)
    assert len({b[0] - a[0] for a, b in itertools.pairwise(kept)}) == 1
    assert thinned(curve[:100]) == curve[:100]
    assert thinned([]) == []


def test_the_time_of_a_resumed_run_is_that_of_its_parts() -> None:
    assert trained_s([{"elapsed_s": elapsed} for elapsed in (1.0, 2.5, 0.5, 3.0)]) == 5.5


def test_a_run_that_was_begun_is_resumed_with_its_own_options(tmp_path: Path) -> None:
    begin, evaluate = commands(TINY, tmp_path)
    assert begin == ["-m", "tfqrl", "train", "ppo", "--env", "CartPole-v1", "--steps", "2048", "--seed", "10",
                     "--out", str(tmp_path), "--evaluate-every", "102"]  # fmt: skip
    assert commands(Job("sac", "Pendulum-v1", 2000, 10), tmp_path)[0][-1] == "--save-replay"
    assert "--save-replay" not in commands(Job("dqn", "ale:Pong-v5", 2000, 10), tmp_path)[0]
    assert commands(Job("ppo", "CartPole-v1", 2048, 10, options="--vec envpool"), tmp_path)[0] == [
        *begin,
        "--vec",
        "envpool",
    ]
    assert evaluate[:4] == ["-m", "tfqrl", "evaluate", str(tmp_path)]
    (tmp_path / "config.json").write_text("{}")
    assert commands(TINY, tmp_path) == [
        ["-m", "tfqrl", "train", "ppo", "--out", str(tmp_path), "--resume"],
        evaluate,
    ]
    train, _ = commands(Job("d4pg", "dmc:a", 300, 10, "actorq", "--actors 4"), tmp_path / "actorq")
    assert train[:4] == ["-m", "tfqrl", "actorq", "d4pg"]
    assert train[-3:] == ["--save-replay", "--actors", "4"]
    ((script, *words),) = commands(Job("td3", "HalfCheetah-v5", 300, 10, "stable-baselines3"), tmp_path)
    assert Path(script).exists()
    assert words[:3] == ["td3", "--env", "HalfCheetah-v5"]


@pytest.mark.long
def test_a_training_becomes_a_result_once_and_goes_on_after_kill_9(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    runs, results = folders
    # The first command of the first attempt dies as it begins to train.
    kill = "import os, signal; from tfqrl.runs import Run; old = Run.append_metrics; " \
           "Run.append_metrics = lambda *a: (old(*a), os.kill(os.getpid(), signal.SIGKILL)); " \
           "import sys; from tfqrl.cli import main; sys.exit(main(sys.argv[1:]))"  # fmt: skip
    with monkeypatch.context() as patched:
        patched.setattr(reference_runs, "commands", lambda job, folder: [["-c", kill, *commands(job, folder)[0][2:]]])
        killed = Runner([TINY], runs, results)
        killed.run(1)
    assert killed.failed == [TINY.name]
    assert "ended with exit code -9." in capfd.readouterr().out, (runs / f"{TINY.name}.log").read_text()
    assert (runs / TINY.name / "config.json").exists()
    assert list(results.iterdir()) == []

    runner = Runner([TINY], runs, results)
    runner.run(1)
    assert runner.failed == [], (runs / f"{TINY.name}.log").read_text()
    result = json.loads((results / f"{TINY.name}.json").read_text())
    assert len(result["returns"]) == reference_runs.EPISODES
    begin = "python -m tfqrl train ppo --env CartPole-v1 --steps 2048 --seed 10 --out RUN --evaluate-every 102"
    assert result["command"] == begin
    assert result["evaluations"][-1][0] == result["curve"][-1][0]
    assert len(result["attempts"]) == 2
    assert result["config"]["gae_lambda"] == zoo.tuned("ppo", "CartPole-v1")["gae_lambda"]
    assert result["curve"][-1][0] >= 2048
    assert result["steps_per_s"] == pytest.approx(result["curve"][-1][0] / result["wall_s"])
    assert {"tfqrl", "tensorflow"} <= set(result["versions"])

    before = (results / f"{TINY.name}.json").read_bytes()
    Runner([TINY], runs, results).run(1)
    assert (results / f"{TINY.name}.json").read_bytes() == before


def test_a_training_that_another_process_is_at_is_left_alone(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    runs, results = folders
    pretend(monkeypatch, "pass")
    with open(runs / f"{TINY.name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        runner = Runner([TINY], runs, results)
        runner.run(1)
    assert runner.failed == []
    assert "another process is at it" in capfd.readouterr().out
    assert list(results.iterdir()) == []


def test_a_child_holds_the_lock_when_its_runner_is_gone(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, results = folders
    fifo = runs / "fifo"
    os.mkfifo(fifo)
    program = (
        "import sys, reference_runs; from pathlib import Path; from reference_runs import *;"
        f"reference_runs.commands = lambda job, folder: [['-c', {f'print(end=open({str(fifo)!r}).read())'!r}]];"
        f"Runner([Job('ppo', 'CartPole-v1', 2048, 10)], Path({str(runs)!r}), Path({str(results)!r})).run(1)"
    )
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    runner = subprocess.Popen([sys.executable, "-c", program], env=environment)
    with fifo.open("w"):  # which waits for the child
        runner.send_signal(signal.SIGKILL)
        runner.wait()
        with open(runs / f"{TINY.name}.lock", "w") as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_failure_is_named_and_the_others_are_done(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    runs, results = folders
    pretend(monkeypatch, "print('why'); assert not FOLDER.endswith('s10')")
    other = Job("ppo", "CartPole-v1", 2048, 11)
    runner = Runner([TINY, other], runs, results)
    runner.run(1)
    assert runner.failed == [TINY.name]
    assert "why" in (runs / f"{TINY.name}.log").read_text()
    assert f"{TINY.name}.log" in capfd.readouterr().out
    assert [path.stem for path in results.iterdir()] == [other.name]


def test_stop_ends_the_training_and_begins_no_other(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, results = folders
    fifo = runs / "fifo"
    os.mkfifo(fifo)
    pretend(monkeypatch, f"import time; open({str(fifo)!r}, 'w').close(); time.sleep(600)")
    runner = Runner([TINY, Job("ppo", "CartPole-v1", 2048, 11)], runs, results)
    thread = threading.Thread(target=runner.run, args=(1,))
    thread.start()
    fifo.read_text()  # which waits for the child
    runner.stop()
    thread.join(60)
    assert not thread.is_alive()
    assert runner.failed == []
    assert list(results.iterdir()) == []
    assert not (runs / "ppo-CartPole-v1-2048-s11.log").exists()


def test_two_at_a_time_have_one_thread_and_one_core_each(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, results = folders
    program = "import json, os; names = [n for n in os.environ if n.endswith('_THREADS')]; " \
              "print(json.dumps([len(os.sched_getaffinity(0)), {n: os.environ[n] for n in names}]))"  # fmt: skip
    pretend(monkeypatch, program)
    Runner([TINY, Job("ppo", "CartPole-v1", 2048, 11)], runs, results).run(2)
    for seed in (10, 11):
        cores, threads = json.loads((runs / f"ppo-CartPole-v1-2048-s{seed}.log").read_text())
        assert cores == 1
        assert {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}.items() <= threads.items()
        result: dict[str, Any] = json.loads((results / f"ppo-CartPole-v1-2048-s{seed}.json").read_text())
        assert result["attempts"][0]["threads"] == 1
