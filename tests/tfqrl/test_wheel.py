import importlib.metadata
import subprocess
import sys
import zipfile
from io import BytesIO

import pytest

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
            "tfqrl/zoo/__init__.py",
            "tfqrl/zoo/ppo.yaml",
        } <= names
        assert not any("__pycache__" in name or name.startswith("tests") for name in names)
        with open(wheel.__file__, "rb") as file:
            assert archive.read("tfqrl/wheel.py") == file.read()


def test_a_checkout_whose_egg_info_is_found_first_makes_a_wheel_too(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.metadata.distribution("tfqrl")
    (tmp_path / "tfqrl.egg-info").mkdir()
    metadata = real.read_text("METADATA") or real.read_text("PKG-INFO")
    (tmp_path / "tfqrl.egg-info" / "PKG-INFO").write_text(metadata)
    (tmp_path / "tfqrl.egg-info" / "entry_points.txt").write_text(real.read_text("entry_points.txt"))
    monkeypatch.syspath_prepend(tmp_path)
    built = wheel.build()
    with zipfile.ZipFile(BytesIO(built.data)) as archive:
        assert b"Name: tfqrl" in archive.read(f"tfqrl-{built.version}.dist-info/METADATA")
    assert "sign" in built.extras


def test_pip_takes_the_wheel(tmp_path) -> None:
    built = wheel.build()
    (tmp_path / built.name).write_bytes(built.data)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", tmp_path / "there"]
    done = subprocess.run([*pip, tmp_path / built.name], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "there/bin/tfqrl-edge").exists()
