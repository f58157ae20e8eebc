"""The unit of `tfqrl deploy --service`, looked at by systemd itself (Debian: apt install systemd)."""

import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from edge.errors import UsageError
from edge.safety import Cause
from tfqrl.service import RUN_OPTIONS, unit


def offline() -> bool:
    """Whether systemd-analyze can look at a unit where systemd does not run: from version 250 on."""
    if shutil.which("systemd-analyze") is None:
        return False
    done = subprocess.run(["systemd-analyze", "--version"], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[1]) >= 250


systemd = pytest.mark.skipif(not offline(), reason="needs systemd-analyze of systemd 250 or newer: apt install systemd")

# What a program that came with the device's own system would be, so that systemd finds that it can be run.
TRUE = shutil.which("true") or "/bin/true"


def text(*words: str, rate_hz: float | None = 50.0, **options: Any) -> str:
    groups = ["dialout", "plugdev"]
    return unit("arm", [TRUE], words, user="root", groups=groups, rate_hz=rate_hz, **options)


def analyze(tmp_path: Path, contents: str, *words: str) -> str:
    path = tmp_path / "tfqrl-arm.service"
    path.write_text(contents)
    done = subprocess.run(["systemd-analyze", *words, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@systemd
def test_systemd_reads_every_line_of_the_unit(tmp_path: Path) -> None:
    words = ["run", "/home/pi's/current/policy.tflite", '--name="100 %h"', "$HOME", "back\\slash", ";", "é", "\\"]
    for edgetpu in (False, True):
        assert "tfqrl-arm.service:" not in analyze(tmp_path, text(*words, edgetpu=edgetpu), "verify", "--man=no")


@systemd
def test_systemd_would_say_if_it_could_not_read_a_line(tmp_path: Path) -> None:
    # The test above rests on it: some mistakes are warned of with exit code 0.
    contents = text("run").replace("ProtectSystem=strict", "ProtectSystem=very")
    assert "tfqrl-arm.service:" in analyze(tmp_path, contents, "verify", "--man=no")


@systemd
def test_systemd_finds_the_unit_hardly_exposed(tmp_path: Path) -> None:
    # Out of 100; an ordinary service without hardening has 96, systemd's word below 50 is "OK". It is asked for a user
    # who is not root, whom the service of a device runs as.
    contents = text("run").replace("User=root", "User=pi")
    analyze(tmp_path, contents, "security", "--offline=true", "--threshold=30", "--no-pager")


@systemd
def test_what_a_real_time_loop_asks_of_the_kernel_is_in_the_filter() -> None:
    needed = {"sched_setscheduler", "sched_setaffinity", "mlockall", "clock_nanosleep", "sendto", "ioctl"}
    allowed: set[str] = set()
    waiting = ["@system-service"]
    while waiting:
        done = subprocess.run(
            ["systemd-analyze", "syscall-filter", waiting.pop()], capture_output=True, text=True, check=True
        )
        names = {line.strip() for line in done.stdout.splitlines() if line.startswith("    ")}
        waiting += [name for name in names if name.startswith("@")]
        allowed |= names
    assert needed <= allowed


def test_the_capabilities_are_those_of_real_time_alone() -> None:
    lines = text("run").splitlines()
    for name in ("AmbientCapabilities", "CapabilityBoundingSet"):
        assert [line for line in lines if line.startswith(name)] == [f"{name}=CAP_SYS_NICE CAP_IPC_LOCK"]
    for line in ("NoNewPrivileges=yes", "ProtectSystem=strict", "Restart=on-failure", "Type=notify"):
        assert line in lines


def test_the_watchdog_waits_for_slow_loops() -> None:
    assert "WatchdogSec=2\n" in text("run", rate_hz=50.0)
    assert "WatchdogSec=2\n" in text("run", rate_hz=None)
    assert "WatchdogSec=20\nTimeoutStopSec=20\n" in text("run", rate_hz=0.5)
    assert "TimeoutStopSec=10\n" in text("run")


def test_the_watchdog_leaves_the_loop_the_time_to_break_off_a_stuck_call_itself() -> None:
    assert "WatchdogSec=12\nTimeoutStopSec=12\n" in text("run", rate_hz=20.0, break_off_s=10.0)


def test_an_emergency_stop_that_is_released_starts_nothing() -> None:
    codes = {UsageError.exit_code, Cause.PLANT_STOPPED.exit_code}
    line = next(line for line in text("run").splitlines() if line.startswith("RestartPreventExitStatus="))
    assert {int(code) for code in line.partition("=")[2].split()} == codes


def test_a_stick_is_let_in_only_where_the_policy_runs_on_it() -> None:
    for line in ("DeviceAllow=char-apex rw", "DeviceAllow=char-usb_device rw", "SupplementaryGroups=dialout plugdev"):
        assert line in text("run", edgetpu=True).splitlines()
        assert line not in text("run").splitlines()
    assert "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK\n" in text("run", edgetpu=True)
    assert "AF_NETLINK" not in text("run")


def test_the_unit_says_what_it_was_made_with() -> None:
    words = ["--plant", "my robot:Arm", "--set", "a=\"b'c\\"]
    line = next(line for line in text(*words).splitlines() if line.startswith(RUN_OPTIONS))
    assert shlex.split(line.removeprefix(RUN_OPTIONS)) == words


def test_words_are_quoted_for_systemd() -> None:
    line = next(line for line in text("a b", '"', "%h", "$HOME", "\\").splitlines() if line.startswith("ExecStart="))
    assert line == f'ExecStart="{TRUE}" "a b" "\\"" "%%h" "$$HOME" "\\\\"'


@pytest.mark.parametrize("word", ["a\nUser=root", "\0", "\x1b"])
def test_a_word_cannot_begin_a_line_of_its_own(word: str) -> None:
    with pytest.raises(UsageError, match="control character"):
        text(word)
