"""What `scripts/virtual_pi.py` refuses. What it builds is tested in `tests/virtual_pi/`."""

import platform
import shutil
from pathlib import Path

import pytest
import virtual_pi


@pytest.fixture(autouse=True)
def able(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine where it can work, and an empty folder to work in."""
    monkeypatch.setattr(virtual_pi, "FOLDER", tmp_path)
    monkeypatch.setattr(virtual_pi, "ROOT", tmp_path / "root")
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    bookworm = {"ID": "debian", "VERSION_ID": "12", "PRETTY_NAME": "Debian GNU/Linux 12 (bookworm)"}
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: bookworm)


def test_without_qemu_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(SystemExit, match="sudo apt-get install qemu-user-static"):
        virtual_pi.build()


def test_another_system_than_debian_12_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    arch = {"ID": "arch", "PRETTY_NAME": "Arch Linux"}  # a rolling release has no VERSION_ID
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: arch)
    with pytest.raises(SystemExit, match=r"Debian 12's packages .*; this is Arch Linux"):
        virtual_pi.build()


def test_a_step_that_fails_shows_what_it_printed() -> None:
    with pytest.raises(SystemExit, match=r"no such package\n\n.*is not built: `sh -c .*` failed"):
        virtual_pi.step("Fetching", ["sh", "-c", "echo no such package >&2; exit 100"])


def test_what_could_not_be_fetched_is_fetched_by_the_next_build(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(title: str, *commands: object) -> None:
        raise SystemExit(title)

    monkeypatch.setattr(virtual_pi, "step", fail)
    for _ in range(2):
        with pytest.raises(SystemExit, match="Reading Debian's list"):
            virtual_pi.build()
