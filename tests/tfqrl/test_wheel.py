import subprocess
import sys
import zipfile
from io import BytesIO

from tfqrl import wheel


def test_equal_packages_give_equal_bytes() -> None:
    first, second = wheel.build(), wheel.build()
    assert first.data == second.data
    assert first.sha256 == second.sha256
    assert first.name == f"tfqrl-{first.version}-py3-none-any.whl"


def test_the_wheel_holds_what_runs_here_and_nothing_else() -> None:
    with zipfile.ZipFile(BytesIO(wheel.build().data)) as archive:
        names = set(archive.namelist())
        assert {
            "edge/cli.py",
            "edge/plants/serial.py",
            "edge/py.typed",
            "tfqrl/cli.py",
            "converters/tflite.py",
        } <= names
        assert not any("__pycache__" in name or name.startswith("tests") for name in names)
        with open(wheel.__file__, "rb") as file:
            assert archive.read("tfqrl/wheel.py") == file.read()


def test_pip_takes_the_wheel(tmp_path) -> None:
    built = wheel.build()
    (tmp_path / built.name).write_bytes(built.data)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", tmp_path / "there"]
    done = subprocess.run([*pip, tmp_path / built.name], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "there/bin/tfqrl-edge").exists()
