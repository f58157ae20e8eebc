"""`scripts/benchmark_on_device.sh`, copied into a folder of its own as onto a device."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import virtual_pi
from fakes import DATA

pytestmark = pytest.mark.long

SCRIPT = Path(__file__).parents[2] / "scripts/benchmark_on_device.sh"
POLICIES = ["arm-int8.tflite", "lever-float32.tflite"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(virtual_pi, "FOLDER", tmp_path_factory.mktemp("wheel"))
        return virtual_pi.build_wheel()


@pytest.fixture
def device(tmp_path: Path) -> Path:
    """A home with the script and policies in it."""
    shutil.copy(SCRIPT, tmp_path)
    for policy in POLICIES:
        shutil.copy(DATA / policy, tmp_path)
    (tmp_path / "bin").mkdir()
    return tmp_path


def program(device: Path, name: str, text: str) -> None:
    (device / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
    (device / "bin" / name).chmod(0o755)


def python_where(device: Path, patch: str) -> None:
    """A python3 in which `patch` was executed before what the script asks of it."""
    program(device, "python3", f'[ "$1" = -c ] || exec {sys.executable} "$@"\nexec {sys.executable} -c "{patch}; $2"')


def script(device: Path, *policies: str, **variables: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(device / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HOME": str(device), "PATH": path, **variables}
    return subprocess.run(
        [shutil.which("sh"), "benchmark_on_device.sh", *policies],
        cwd=device, env=environment, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip


def test_it_installs_verifies_measures_and_leaves_one_json(device: Path, wheel: Path) -> None:
    shutil.copy(wheel, device)
    program(device, "vcgencmd", "echo throttled=0x50000")
    done = script(device, *POLICIES)
    assert done.returncode == 0, done.stderr
    assert f"Installing tfqrl from {wheel.name}" in done.stdout
    assert "OK: arm gives its 37 golden actions" in done.stdout
    assert "OK: lever gives its 37 golden actions" in done.stdout
    assert "throttle state is throttled=0x50000" in done.stdout
    (report,) = device.glob("bench-*.json")
    assert json.loads(report.read_text())
    assert f"tfqrl-edge compare {report.name} OTHER.json" in done.stdout

    # Again: nothing to install, and so nothing that could fail without an index.
    report.unlink()
    done = script(device, POLICIES[0], PIP_NO_INDEX="1")
    assert done.returncode == 0, done.stderr
    assert f"Using {device}/tfqrl-venv again." in done.stdout
    assert len(list(device.glob("bench-*.json"))) == 1

    # Another wheel is another installation.
    (device / wheel.name).write_bytes(b"not a wheel")
    done = script(device, POLICIES[0], PIP_NO_INDEX="1")
    assert done.returncode == 1
    assert f"Installing tfqrl from {wheel.name}" in done.stdout


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="tflite-runtime ends at Python 3.11: run the tests with that")
def test_a_32_bit_system_gets_tflite_runtime(device: Path, wheel: Path) -> None:
    shutil.copy(wheel, device)
    python_where(device, "import struct; struct.calcsize = lambda code: 4")
    done = script(device, POLICIES[0])
    assert done.returncode == 0, done.stderr
    assert "golden actions on tflite-runtime 2.14.0" in done.stdout


def test_without_a_wheel_it_installs_nothing_and_says_how_to_make_one(device: Path) -> None:
    done = script(device, POLICIES[0])
    assert done.returncode == 1
    assert f"There is no tfqrl-*.whl in {device}. Make it with `pip wheel --no-deps .`" in done.stderr
    assert not (device / "tfqrl-venv").exists()


def test_without_a_policy_it_says_how_it_is_used(device: Path) -> None:
    done = script(device)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: ")


REFUSED = [
    ("import sys; sys.version_info = (3, 9, 2)", "needs Python 3.10 to 3.13 on a 64-bit system; python3 is 3.9 here"),
    ("import sys; sys.version_info = (3, 14, 0)", "needs Python 3.10 to 3.13 on a 64-bit system; python3 is 3.14"),
    (
        "import struct, sys; struct.calcsize = lambda code: 4; sys.version_info = (3, 13, 5)",
        "needs Python 3.10 to 3.11 on a 32-bit system; python3 is 3.13 here",
    ),
    ("import sys; sys.modules['ensurepip'] = None", "Run: sudo apt-get install python3-venv"),
]


@pytest.mark.parametrize(("patch", "message"), REFUSED)
def test_a_python_that_will_not_do_is_refused(patch: str, message: str, device: Path) -> None:
    python_where(device, patch)
    done = script(device, POLICIES[0])
    assert done.returncode == 1
    assert message in done.stderr
    assert not (device / "tfqrl-venv").exists()


def test_a_system_without_python_is_told_what_to_install(device: Path) -> None:
    done = script(device, POLICIES[0], PATH=str(device / "bin"))
    assert done.returncode == 1
    assert "sudo apt-get install python3 python3-venv" in done.stderr


def test_a_policy_that_is_not_there_is_named(device: Path) -> None:
    done = script(device, POLICIES[0], "none.tflite")
    assert done.returncode == 1
    assert "There is no file none.tflite" in done.stderr


def test_two_wheels_are_one_too_many(device: Path) -> None:
    for version in ("0.1.0", "0.2.0"):
        (device / f"tfqrl-{version}-py3-none-any.whl").touch()
    done = script(device, POLICIES[0])
    assert done.returncode == 1
    assert "more than one tfqrl-*.whl" in done.stderr


def test_a_full_card_is_told_before_anything_is_installed(device: Path) -> None:
    (device / "tfqrl-0.1.0-py3-none-any.whl").touch()
    program(device, "df", "echo Filesystem; echo /dev/root 30000000 29900000 100000 100% /")
    done = script(device, POLICIES[0])
    assert done.returncode == 1
    assert "has 100 MB free; the installation needs 500 MB" in done.stderr
    assert not (device / "tfqrl-venv").exists()


def test_the_script_is_what_shellcheck_calls_portable() -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed: `sudo apt-get install shellcheck`")
    done = subprocess.run(["shellcheck", SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
