"""What `scripts/virtual_pi.py` refuses. What it builds is tested in `tests/virtual_pi/`."""

import importlib.util
import platform
import shutil
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def virtual_pi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module, on a machine where it can work, with an empty folder to work in."""
    spec = importlib.util.spec_from_file_location("virtual_pi", Path(__file__).parents[2] / "scripts/virtual_pi.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.FOLDER, module.ROOT = tmp_path, tmp_path / "root"
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    bookworm = {"ID": "debian", "VERSION_ID": "12", "PRETTY_NAME": "Debian GNU/Linux 12 (bookworm)"}
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: bookworm)
    return module


def test_without_qemu_it_says_what_to_install(virtual_pi: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(SystemExit, match="sudo apt-get install qemu-user-static"):
        virtual_pi.build()


def test_another_system_than_debian_12_is_refused(virtual_pi: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    arch = {"ID": "arch", "PRETTY_NAME": "Arch Linux"}  # a rolling release has no VERSION_ID
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: arch)
    with pytest.raises(SystemExit, match="Debian 12's packages.*; this is Arch Linux"):
        virtual_pi.build()


def test_a_step_that_fails_shows_what_it_printed(virtual_pi: ModuleType) -> None:
    with pytest.raises(SystemExit, match=r"no such package\n\n.*is not built: `sh -c .*` failed"):
        virtual_pi.step("Fetching", ["sh", "-c", "echo no such package >&2; exit 100"])


def test_what_apt_could_not_fetch_is_fetched_by_the_next_build(
    virtual_pi: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(title: str, *commands: object) -> None:
        raise SystemExit(title)

    monkeypatch.setattr(virtual_pi, "step", fail)
    for _ in range(2):
        with pytest.raises(SystemExit, match="Reading Debian's list"):
            virtual_pi.build()


def test_nothing_runs_before_it_is_built(virtual_pi: ModuleType) -> None:
    with pytest.raises(SystemExit, match="`make virtual-pi` builds it"):
        virtual_pi.run("ai-edge-litert", ["-c", ""])
