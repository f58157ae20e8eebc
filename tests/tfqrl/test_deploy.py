"""`tfqrl deploy` against a real OpenSSH server on loopback (Debian: apt install openssh-server openssh-client)."""

import dataclasses
import fcntl
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from getpass import getuser
from pathlib import Path

import pytest
from fakes import DATA
from sshd import SSHD, Board

from edge import artifact
from edge.bench import BenchReport
from edge.errors import UsageError
from edge.records import from_plain
from edge.signature import make_key, sign
from tfqrl import cli, scripts, wheel
from tfqrl.deploy import EXAMPLE, Options, _install, _numbers, slug
from tfqrl.device import Device
from tfqrl.scripts import INSTALL

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        SSHD is None or shutil.which("ssh") is None,
        reason="needs OpenSSH's server and client: apt install openssh-server openssh-client",
    ),
]

ARM = DATA / "arm-int8.tflite"
ARM_FLOAT = DATA / "arm-float32.tflite"
SERVICE = ("--service", "--run-options", "--plant serial --port /dev/ttyACM0 --failsafe=zero")


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    with Board(tmp_path_factory.mktemp("board")) as board:
        yield board


@pytest.fixture
def board(device: Board) -> Board:
    """The device with the environments that it had after the first installation, and without policies."""
    fresh = device.box / "fresh"
    if not fresh.exists():
        shutil.rmtree(device.base, ignore_errors=True)
        assert deploy(device, ARM) == 0
        shutil.rmtree(device.base / "policies")
        shutil.copytree(device.base, fresh, symlinks=True)
    elif installed(device.base) != installed(fresh):
        shutil.rmtree(device.base, ignore_errors=True)
        shutil.copytree(fresh, device.base, symlinks=True)
    shutil.rmtree(device.base / "policies", ignore_errors=True)
    for path in ("active", "broken", "failed-too-often", "no-sudo", "etc/systemd/system/tfqrl-arm.service"):
        (device.box / path).unlink(missing_ok=True)
    device.calls()
    return device


def installed(base: Path) -> tuple[str, list[str]]:
    """Which environment is current (empty: none is), and all that are there."""
    try:
        return os.readlink(base / "venv"), sorted(os.listdir(base / "venvs"))
    except FileNotFoundError:
        return "", []


def deploy(board: Board, policy: Path, *options: str, ssh: str | None = None) -> int:
    return cli.main(["deploy", str(policy), f"{getuser()}@127.0.0.1", "--ssh", ssh or board.ssh, *options])


def current(board: Board, name: str = "arm") -> bytes:
    return (board.base / "policies" / name / "current/policy.tflite").read_bytes()


def policies(board: Board) -> dict[str, object]:
    """Every name below the folder of policies, with what a link points to and when a file changed."""
    return {
        str(path.relative_to(board.base)): os.readlink(path) if path.is_symlink() else path.stat().st_mtime_ns
        for path in (board.base / "policies").rglob("*")
        if path.is_symlink() or path.is_file()
    }


def variant(path: Path, number: int) -> Path:
    """The arm, trained a little longer."""
    source = artifact.read(ARM)
    manifest = dataclasses.replace(source.manifest, training={**source.manifest.training, "steps": number})
    artifact.write(path, dataclasses.replace(source, manifest=manifest), force=True)
    return path


def broken(path: Path) -> Path:
    """A policy whose golden pairs nothing reproduces."""
    source = artifact.read(ARM)
    golden = dataclasses.replace(source.golden, actions=source.golden.actions + 1)
    artifact.write(path, dataclasses.replace(source, golden=golden))
    return path


def test_a_policy_is_installed_copied_and_verified_and_then_left_alone(
    device: Board, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(device.base, ignore_errors=True)
    assert deploy(device, ARM) == 0
    printed = capsys.readouterr().out
    assert "Installing tfqrl" in printed
    assert "OK: arm gives its 37 golden actions" in printed
    assert re.search(r"^arm [0-9a-f]{12} is current\.$", printed, re.MULTILINE)
    assert current(device) == ARM.read_bytes()
    before = policies(device), os.readlink(device.base / "venv")

    assert deploy(device, ARM) == 0
    printed = capsys.readouterr().out
    assert "Installing" not in printed
    assert "is already there." in printed
    assert "OK: arm" in printed
    assert (policies(device), os.readlink(device.base / "venv")) == before

    # What it says to run is a command of the device's.
    command = printed.splitlines()[-1].removeprefix("Run it with: ")
    assert f" {EXAMPLE}" in command
    done = subprocess.run(
        ["sh", "-c", command.replace("ssh -t ", f"{device.ssh} ", 1) + " --help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "usage: tfqrl-edge run" in done.stdout


def test_a_changed_tfqrl_is_installed_beside_the_one_that_runs(
    board: Board, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert deploy(board, ARM) == 0
    here, before = wheel.build(), os.readlink(board.base / "venv")
    folder = shutil.copytree(Path(artifact.__file__).parent, board.box / "changed/edge", dirs_exist_ok=True)
    (folder / "changed.py").write_text("CHANGED = True\n")
    original = wheel._folder
    monkeypatch.setattr(wheel, "_folder", lambda name: folder if name == "edge" else original(name))
    changed = wheel.build()
    assert changed.version == here.version
    assert deploy(board, ARM) == 0
    assert "Installing tfqrl" in capsys.readouterr().out
    after = os.readlink(board.base / "venv")
    assert after != before
    assert sorted(path.name for path in (board.base / "venvs").iterdir()) == sorted(
        [Path(before).name, Path(after).name]
    )
    assert list((board.base / "venv").glob("lib/*/site-packages/edge/changed.py"))

    monkeypatch.undo()
    # As after an upgrade of the system, whose new Python knows nothing of the old one's packages.
    for path in (board.base / before / "bin").glob("python*"):
        path.unlink()
    assert deploy(board, ARM) == 0
    assert os.readlink(board.base / "venv") == before
    assert "Installing tfqrl" in capsys.readouterr().out
    assert deploy(board, ARM) == 0
    assert "Installing tfqrl" not in capsys.readouterr().out


def test_a_newer_tfqrl_is_kept(
    board: Board, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    older = dataclasses.replace(wheel.build(), version="0.0.9", data=b"")
    monkeypatch.setattr(wheel, "build", lambda: older)
    assert deploy(board, ARM) == 0
    assert "newer than here" in capsys.readouterr().out


def test_a_tfqrl_that_does_not_install_leaves_the_old_one(
    board: Board, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = installed(board.base)
    damaged = dataclasses.replace(wheel.build(), data=b"not a wheel")
    monkeypatch.setattr(wheel, "build", lambda: damaged)
    assert deploy(board, ARM) == 1
    assert "tfqrl-0.1.0-py3-none-any.whl" in capsys.readouterr().err
    assert installed(board.base) == before


def test_a_wheel_that_is_cut_short_leaves_nothing(
    board: Board, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = installed(board.base)
    longer = dataclasses.replace(wheel.build(), data=wheel.build().data + b"\0")
    monkeypatch.setattr(wheel, "build", lambda: longer)
    cut = board.put("cut-ssh", f'#!/bin/sh\nhead -c 3000 | exec {board.ssh} "$@"\n')
    assert deploy(board, ARM, ssh=str(cut)) == 1
    assert "The wheel did not arrive whole." in capsys.readouterr().err
    assert installed(board.base) == before


def test_extras_are_added_in_a_new_venv_and_stay(board: Board, capsys: pytest.CaptureFixture[str]) -> None:
    before = os.readlink(board.base / "venv")
    assert deploy(board, ARM, "--extras", "sign") == 0
    assert "with ['sign'] ..." in capsys.readouterr().out
    assert os.readlink(board.base / "venv") == f"{before}-sign"
    assert (board.base / before / "tfqrl-extras").read_text() == "\n"
    assert deploy(board, ARM) == 0
    assert "Installing" not in capsys.readouterr().out
    assert (board.base / "venv/tfqrl-extras").read_text() == "sign\n"


def test_extras_of_a_newer_tfqrl_come_from_its_own_wheel(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.readlink(board.base / "venv")
    older = dataclasses.replace(wheel.build(), version="0.0.9", data=b"")
    monkeypatch.setattr(wheel, "build", lambda: older)
    assert deploy(board, ARM, "--extras", "sign") == 0
    assert os.readlink(board.base / "venv") == f"{before}-sign"
    assert sorted(os.listdir(board.base / "venv/wheel")) == sorted(os.listdir(board.base / before / "wheel"))


def test_a_venv_that_something_runs_from_is_kept(board: Board) -> None:
    here, device = wheel.build(), Device(f"{getuser()}@127.0.0.1", board.ssh)
    before = board.base / os.readlink(board.base / "venv")
    names = ["0.1.0-000000000001", "0.1.0-000000000002"]
    for name in names:
        # As if they had been made already.
        shutil.copytree(before, board.base / "venvs" / name, symlinks=True)
    with subprocess.Popen([before / "bin/python", "-c", "input()"], stdin=subprocess.PIPE) as runs:
        for name in names:
            device.run(INSTALL, name, "", here.name, here.sha256, "", data=here.data)
        assert before.exists()
        assert runs.stdin is not None
        runs.stdin.write(b"\n")
    device.run(INSTALL, names[0], "", here.name, here.sha256, "", data=here.data)
    assert sorted(os.listdir(board.base / "venvs")) == names


def test_a_python_without_wheels_of_lgpio_takes_the_distributions(
    board: Board, capsys: pytest.CaptureFixture[str]
) -> None:
    python = (board.box / "bin/python3").read_text().splitlines()[1]
    text = f"#!/bin/sh\ncase $2 in *version_info*) echo 3.13 ;; *lgpio*) exit 1 ;; *) {python} ;; esac\n"
    try:
        board.put("python3", text)
        assert deploy(board, ARM, "--extras", "gpio") == 1
    finally:
        board.put("python3", f"#!/bin/sh\n{python}\n")
    assert "sudo apt install python3-lgpio" in capsys.readouterr().err

    class Recorder(Device):
        def run(self, script: str, *words: str, data: bytes = b"") -> str:
            self.words = words
            return ""

    recorder = Recorder("pi")
    facts = {"installed": "", "extras": "", "python": "3.13", "lgpio": "yes"}
    _install(recorder, facts, Options(extras=("gpio",)), print)
    assert recorder.words[1::3] == ("gpio", "--system-site-packages")
    _install(recorder, {**facts, "python": "3.12"}, Options(extras=("gpio",)), print)
    assert recorder.words[1::3] == ("gpio", "")

    here, name = wheel.build(), "0.1.0-000000000003"
    words = (name, "", here.name, here.sha256, "--system-site-packages")
    Device(f"{getuser()}@127.0.0.1", board.ssh).run(INSTALL, *words, data=here.data)
    assert "include-system-site-packages = true" in (board.base / "venvs" / name / "pyvenv.cfg").read_text()


def test_two_deployments_do_not_meet(board: Board, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert deploy(board, ARM) == 0
    before = policies(board)
    with open(board.base / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert deploy(board, variant(tmp_path / "newer.tflite", 1)) == 1
        assert "Another deployment is at work there." in capsys.readouterr().err
    assert policies(board) == before


@pytest.mark.parametrize("name", ["INSTALL", "COPY", "ROLLBACK", "SERVICE", "RESTART"])
def test_what_changes_something_there_takes_the_lock(name: str) -> None:
    assert scripts.LOCK in getattr(scripts, name)


def test_what_was_looked_at_is_what_is_sent(board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tmp_path / "policy.tflite"
    policy.write_bytes(ARM.read_bytes())
    original = artifact.from_bytes

    def exchanged(data: bytes, source: str = "policy") -> artifact.Artifact:
        policy.write_bytes(ARM_FLOAT.read_bytes())
        return original(data, source)

    monkeypatch.setattr(artifact, "from_bytes", exchanged)
    assert deploy(board, policy) == 0
    assert current(board) == ARM.read_bytes()


def test_a_newer_version_is_told_by_its_numbers() -> None:
    assert _numbers("0.1.0rc1") == _numbers("0.1.0.dev3") == _numbers("0.1.0") < _numbers("0.1.1") < _numbers("0.10")


def test_an_unknown_extra_is_refused(board: Board, capsys: pytest.CaptureFixture[str]) -> None:
    assert deploy(board, ARM, "--extras", "serail") == 2
    assert "Unknown extra 'serail'." in capsys.readouterr().err


def test_a_changed_policy_becomes_current_and_rollback_returns(
    board: Board, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert deploy(board, ARM, "--rollback") == 1
    assert "No policy arm was deployed there" in capsys.readouterr().err
    assert deploy(board, ARM) == 0
    assert deploy(board, ARM, "--rollback") == 1
    assert "no version of arm before" in capsys.readouterr().err
    newer = variant(tmp_path / "newer.tflite", 1)
    assert deploy(board, newer) == 0
    assert current(board) == newer.read_bytes()
    assert deploy(board, newer, "--rollback") == 0
    assert "is current again." in capsys.readouterr().out
    assert current(board) == ARM.read_bytes()
    assert deploy(board, newer, "--rollback") == 0
    assert current(board) == newer.read_bytes()


def test_rollback_to_a_version_that_was_damaged_is_refused(
    board: Board, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert deploy(board, ARM) == 0
    newer = variant(tmp_path / "newer.tflite", 1)
    assert deploy(board, newer) == 0
    (board.base / "policies/arm/previous/policy.tflite").write_bytes(b"damaged")
    assert deploy(board, newer, "--rollback") == 1
    assert "The policy is refused there" in capsys.readouterr().err
    assert current(board) == newer.read_bytes()
    # Deployed again, it is made whole.
    assert deploy(board, ARM) == 0
    assert current(board) == ARM.read_bytes()


def test_only_the_last_versions_are_kept(board: Board, tmp_path: Path) -> None:
    assert deploy(board, ARM) == 0
    first = os.readlink(board.base / "policies/arm/current")
    older = [board.base / "policies/arm" / f"{number:012x}" for number in range(6)]
    for age_s, folder in enumerate(older):
        folder.mkdir()
        os.utime(folder, (1e9 - age_s, 1e9 - age_s))
    assert deploy(board, variant(tmp_path / "newer.tflite", 1)) == 0
    second = os.readlink(board.base / "policies/arm/current")
    kept = {path.name for path in (board.base / "policies/arm").iterdir() if re.fullmatch("[0-9a-f]{12}", path.name)}
    assert kept == {first, second, *(folder.name for folder in older[:3])}


def test_a_policy_that_fails_its_golden_pairs_there_does_not_become_current(
    board: Board, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert deploy(board, ARM) == 0
    before = policies(board)
    assert deploy(board, broken(tmp_path / "broken.tflite")) == 1
    error = capsys.readouterr().err
    assert "37 of 37 golden actions differ" in error
    assert "what was current still is" in error
    assert policies(board) == before


def test_a_copy_that_is_cut_short_leaves_nothing(
    board: Board, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert deploy(board, ARM) == 0
    before = policies(board)
    cut = board.put("cut-ssh", f'#!/bin/sh\nhead -c 3000 | exec {board.ssh} "$@"\n')
    assert deploy(board, variant(tmp_path / "newer.tflite", 1), ssh=str(cut)) == 1
    assert "did not arrive whole. Deploy again." in capsys.readouterr().err
    assert policies(board) == before
    assert list((board.base / "policies/arm").glob(".*")) == []


def test_the_bench_is_measured_there_and_fetched(board: Board, tmp_path: Path) -> None:
    # A signed one: the device asks for its signature here too.
    policy, public = tmp_path / "policy.tflite", make_key(tmp_path / "maker")
    policy.write_bytes(sign(ARM.read_bytes(), tmp_path / "maker"))
    assert deploy(board, policy, "--trust", str(public), "--bench") == 0
    report = json.loads((tmp_path / "policy.bench.json").read_text())
    assert from_plain(BenchReport, report, "report").entries[0].name == "arm"


def test_names_of_any_kind_are_made_into_names_of_folders(board: Board, tmp_path: Path) -> None:
    source = artifact.read(ARM)
    name = 'it\'s; rm -rf "$HOME" `id` ../../%n Größe'
    artifact.write(
        tmp_path / "a 'b\".tflite",
        dataclasses.replace(source, manifest=dataclasses.replace(source.manifest, name=name)),
    )
    assert deploy(board, tmp_path / "a 'b\".tflite") == 0
    assert os.listdir(board.base / "policies") == [slug(name)]
    assert current(board, slug(name)) == (tmp_path / "a 'b\".tflite").read_bytes()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ppo-Ant-v5", "ppo-Ant-v5"),
        ("ppo-ALE/Pong", "ppo-ALE-Pong-[0-9a-f]{8}"),
        ("../..", "policy-[0-9a-f]{8}"),
        ("-x", "x-[0-9a-f]{8}"),
        ("é", "policy-[0-9a-f]{8}"),
        ("a" * 99, "a{55}-[0-9a-f]{8}"),
    ],
)
def test_a_slug_is_a_name_that_cannot_leave_its_folder(name: str, expected: str) -> None:
    assert re.fullmatch(expected, slug(name))


def test_no_two_policies_share_a_folder() -> None:
    assert len({slug(name) for name in ("a b", "a-b", "a/b", "a--b", "a b ")}) == 5


def test_a_device_asks_for_signatures_from_the_first_signed_policy_on(
    board: Board, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    public = make_key(tmp_path / "maker")
    signed = tmp_path / "signed.tflite"
    signed.write_bytes(sign(ARM.read_bytes(), tmp_path / "maker"))
    assert deploy(board, ARM, "--trust", str(public)) == 1
    assert "is not signed" in capsys.readouterr().err
    assert not (board.base / "policies").exists()
    assert deploy(board, signed, "--trust", str(public)) == 0
    assert current(board) == signed.read_bytes()
    assert "--require-signature" in capsys.readouterr().out

    before = policies(board)
    assert deploy(board, variant(tmp_path / "unsigned.tflite", 1)) == 1
    assert "is not signed" in capsys.readouterr().err
    other = make_key(tmp_path / "other")
    foreign = tmp_path / "foreign.tflite"
    foreign.write_bytes(sign(ARM.read_bytes(), tmp_path / "other"))
    assert deploy(board, foreign) == 1
    assert "none of the 1 trusted" in capsys.readouterr().err
    assert policies(board) == before
    # Whoever may deploy may change the keys.
    assert deploy(board, foreign, "--trust", str(public), "--trust", str(other)) == 0
    assert current(board) == foreign.read_bytes()
    assert deploy(board, signed) == 0
    # Each version has the keys that it was deployed with: one link switches both.
    keys = [(board.base / "policies/arm" / link / "trusted.pub").read_bytes() for link in ("previous", "current")]
    assert keys == [public.read_bytes() + other.read_bytes()] * 2


def test_a_service_is_installed_once_and_restarted_for_new_policies(
    board: Board, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert deploy(board, ARM, *SERVICE) == 0
    assert "tfqrl-arm.service was started and is active." in capsys.readouterr().out
    unit = board.box / "etc/systemd/system/tfqrl-arm.service"
    text = unit.read_text()
    assert f"User={getuser()}\n" in text
    path = f"{board.base}/policies/arm/current/policy.tflite"
    expected = f'ExecStart="{board.base}/venv/bin/tfqrl-edge" "run" "{path}" '
    assert expected + '"--plant" "serial" "--port" "/dev/ttyACM0" "--failsafe=zero"\n' in text
    calls = board.calls()
    assert [call for call in calls if call.startswith("sudo systemctl")] == [
        "sudo systemctl daemon-reload",
        "sudo systemctl enable tfqrl-arm.service",
        "sudo systemctl reset-failed tfqrl-arm.service",
        "sudo systemctl restart tfqrl-arm.service",
    ]

    written = unit.stat().st_mtime_ns
    assert deploy(board, ARM, *SERVICE) == 0
    assert "tfqrl-arm.service is already there." in capsys.readouterr().out
    assert unit.stat().st_mtime_ns == written
    assert not any("restart" in call for call in board.calls())

    assert deploy(board, variant(tmp_path / "newer.tflite", 1)) == 0
    assert "tfqrl-arm.service was started and is active." in capsys.readouterr().out
    assert "sudo systemctl restart tfqrl-arm.service" in board.calls()
    assert deploy(board, ARM, "--rollback") == 0
    assert "was started" in capsys.readouterr().out
    assert "sudo systemctl restart tfqrl-arm.service" in board.calls()


def test_a_service_asks_for_signatures_once_a_policy_has_one(
    board: Board, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert deploy(board, ARM, *SERVICE) == 0
    unit = board.box / "etc/systemd/system/tfqrl-arm.service"
    assert "--require-signature" not in unit.read_text()
    before = unit.read_text()
    signed, newer, public = tmp_path / "signed.tflite", tmp_path / "newer.tflite", make_key(tmp_path / "maker")
    signed.write_bytes(sign(ARM.read_bytes(), tmp_path / "maker"))
    newer.write_bytes(sign(variant(newer, 1).read_bytes(), tmp_path / "maker"))
    assert deploy(board, signed, "--trust", str(public)) == 0
    keys = f"{board.base}/policies/arm/current/trusted.pub"
    assert f'"--trust" "{keys}" "--require-signature" "--plant" "serial"' in unit.read_text()
    assert Path(keys).read_bytes() == public.read_bytes()
    assert "sudo systemctl restart tfqrl-arm.service" in board.calls()

    # The version before is not signed, and the keys hold for it too.
    assert deploy(board, signed, "--rollback") == 1
    assert "is not signed" in capsys.readouterr().err
    assert deploy(board, newer) == 0
    written = unit.read_text()
    assert deploy(board, newer, "--rollback") == 0
    assert current(board) == signed.read_bytes()
    assert unit.read_text() == written

    unit.write_text(before)
    assert deploy(board, newer, "--rollback") == 1
    assert "does not ask for a signature yet" in capsys.readouterr().err
    unit.write_text("[Service]\n")
    assert deploy(board, newer) == 1
    assert "not known how it was made: add --service" in capsys.readouterr().err


def test_the_unit_follows_the_options_of_the_run(board: Board) -> None:
    options = f"{EXAMPLE} --rate 0.2 --device edgetpu:usb:0"
    assert deploy(board, ARM, "--service", "--run-options", options) == 0
    text = (board.box / "etc/systemd/system/tfqrl-arm.service").read_text()
    assert "WatchdogSec=50\nTimeoutStopSec=50\n" in text
    assert "DeviceAllow=char-usb_device rw" in text
    # A stuck call is broken off by the loop itself after 1 + 2 * 10 / 0.2 s; systemd waits longer than that.
    options = f"{EXAMPLE} --rate 0.2 --max-block 1 --stop-after 10"
    assert deploy(board, ARM, "--service", "--run-options", options) == 0
    assert "WatchdogSec=112.1\n" in (board.box / "etc/systemd/system/tfqrl-arm.service").read_text()


def test_a_service_that_failed_too_often_is_started_again(board: Board, tmp_path: Path) -> None:
    assert deploy(board, ARM, *SERVICE) == 0
    newer = variant(tmp_path / "newer.tflite", 1)
    for options in ((), ("--rollback",)):
        (board.box / "failed-too-often").touch()
        assert deploy(board, newer, *options) == 0
        calls = board.calls()
        again = calls.index("sudo systemctl reset-failed tfqrl-arm.service")
        assert again < calls.index("sudo systemctl restart tfqrl-arm.service")


def test_a_restart_that_failed_is_made_up_for(board: Board, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert deploy(board, ARM, *SERVICE) == 0
    newer = variant(tmp_path / "newer.tflite", 1)
    (board.box / "broken").touch()
    assert deploy(board, newer) == 1
    error = capsys.readouterr().err
    assert "does not start" in error
    assert "--rollback returns to it" in error
    (board.box / "broken").unlink()
    assert deploy(board, newer) == 0
    printed = capsys.readouterr().out
    assert "is already there." in printed
    assert "was started and is active." in printed
    assert deploy(board, newer) == 0
    assert "started" not in capsys.readouterr().out


def test_a_service_that_does_not_start_is_an_error(board: Board, capsys: pytest.CaptureFixture[str]) -> None:
    (board.box / "broken").touch()
    assert deploy(board, ARM, *SERVICE) == 1
    assert "The service tfqrl-arm.service does not start." in capsys.readouterr().err


def test_a_service_without_the_right_to_install_one_is_an_error(
    board: Board, capsys: pytest.CaptureFixture[str]
) -> None:
    (board.box / "no-sudo").touch()
    assert deploy(board, ARM, *SERVICE) == 1
    assert "sudo asks" in capsys.readouterr().err
    assert not (board.box / "etc/systemd/system/tfqrl-arm.service").exists()


def test_a_device_that_lacks_something_is_told_from_one_that_does_not(
    board: Board, capsys: pytest.CaptureFixture[str]
) -> None:
    python = (board.box / "bin/python3").read_text()
    fakes = [
        ("python3", "#!/bin/sh\nexit 127\n", "has no python3"),
        ("python3", "#!/bin/sh\necho 3.9\n", "has Python 3.9; tfqrl needs 3.10"),
        ("python3", "#!/bin/sh\ncase $2 in *P*) echo 32 ;; *) echo 3.11 ;; esac\n", "has a 32-bit system"),
        ("python3", "#!/bin/sh\ncase $2 in *venv*) exit 1 ;; *P*) echo 64 ;; *) echo 3.11 ;; esac\n", "python3-venv"),
        ("uname", "#!/bin/sh\necho Darwin\n", "runs Darwin"),
        ("tar", "#!/bin/sh\necho 'tar: No space left on device' >&2\nexit 2\n", "has no space left"),
    ]
    for name, text, message in fakes:
        path = board.put(name, text)
        assert deploy(board, ARM) == 1
        assert message in capsys.readouterr().err
        path.unlink()
        board.put("python3", python)


def test_connections_that_cannot_be_are_told_apart(board: Board, capsys: pytest.CaptureFixture[str]) -> None:
    (board.box / "nobody").write_text("")
    for ssh, message in (
        (board.ssh_with(key="stranger"), "ssh-copy-id"),
        (board.ssh_with(known="nobody"), "Its host key is not known here"),
        (board.ssh_with(port=1), "Is it on, in this network"),
        ("no-such-ssh", "no-such-ssh cannot be run"),
        ("true", "let us in and ran nothing"),
    ):
        assert deploy(board, ARM, ssh=ssh) == 1
        assert message in capsys.readouterr().err
    assert not (board.base / "policies").exists()


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="needs shellcheck: apt install shellcheck")
@pytest.mark.parametrize("name", ["PROBE", "INSTALL", "COPY", "ROLLBACK", "BENCH", "SERVICE", "RESTART"])
def test_the_devices_shell_is_only_asked_for_what_posix_has(name: str) -> None:
    script = f"set -eu\nbase=$HOME\n{getattr(scripts, name)}"
    done = subprocess.run(["shellcheck", "-s", "sh", "-"], input=script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("host", ["-oProxyCommand=x", "pi@-oProxyCommand=x", "-p@host", "", "a b", "a\nb", "pi@"])
def test_a_host_that_ssh_could_take_for_something_else_is_refused(host: str) -> None:
    with pytest.raises(UsageError, match="is no device"):
        Device(host)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ssh", "ssh 'open"], "--ssh cannot be read"),
        (["--ssh", ""], "--ssh takes a command"),
        (["--service", "--run-options", "--plant 'open"], "--run-options cannot be read"),
        (["--run-options", "--rate 5"], "add --service"),
        (["--service"], "has to know its plant"),
        (["--service", "--run-options", "--failsafe zero"], "has to know its plant"),
        (["--service", "--run-options", "--plant serial --failsfe zero"], "unrecognized arguments: --failsfe zero."),
        (["--service", "--run-options", "--plant serial --rate fast"], "invalid float value: 'fast'."),
        (["--service", "--run-options", "--help"], "there is a --help in them."),
        (["--rollback", "--bench"], "--rollback goes alone"),
        (["--bench", "--json", f"{__file__}/report.json"], "Cannot write"),
        (["--benhc"], "Did you mean '--bench'"),
    ],
)
def test_options_that_cannot_be_are_refused(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["deploy", str(ARM), "localhost", *options]) in (1, 2)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--trust", "--extras"])
def test_an_option_whose_value_got_lost_is_refused(option: str) -> None:
    for words in ([option], [option, "--bench"]):
        with pytest.raises(SystemExit) as error:
            cli.main(["deploy", "policy.tflite", "pi@host", *words])
        assert error.value.code == 2
