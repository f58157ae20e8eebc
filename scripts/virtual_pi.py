"""Make a folder that stands for a Raspberry Pi 4 on Debian 12: `python scripts/virtual_pi.py`.

In build/virtual-pi it leaves one Python for each runtime, to be run like any other:

    build/virtual-pi/ai-edge-litert/python -m edge.cli info policy.tflite
    build/virtual-pi/tflite-runtime/python -m edge.cli verify policy.tflite

Debian's arm64 packages and aarch64 wheels are unpacked side by side; qemu-aarch64-static runs them. It needs no root,
no chroot and no binfmt_misc. docs/virtual-pi.md says what the virtual Pi proves and what not.
"""

from __future__ import annotations

import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1]
FOLDER = SOURCE / "build" / "virtual-pi"
ROOT = FOLDER / "root"
QEMU = "qemu-aarch64-static"

# What a wheel needs from the system, and base-files for /etc/os-release. apt adds what these depend on.
DEBIAN_PACKAGES = ("base-files", "python3.11-minimal", "libpython3.11-stdlib", "libstdc++6", "zlib1g")

# Debian 12 has glibc 2.36.
WHEEL_PLATFORMS = [f"manylinux_2_{minor}_aarch64" for minor in range(36, 16, -1)] + ["manylinux2014_aarch64"]

# What is installed beside this project's own wheel; with None, what that wheel asks for itself. Gymnasium is there
# for plants that `run` can drive.
RUNTIMES: dict[str, tuple[str, ...] | None] = {
    "ai-edge-litert": None,
    "tflite-runtime": ("tflite-runtime==2.14.0", "numpy<2"),
}
PLANTS = "gymnasium>=1.2,<1.5"

# One core of a Pi 4 as its kernel describes it. Libraries that choose their kernels by the processor (XNNPACK) read
# this file: before that of the machine below was hidden from them, ai-edge-litert 2.2 and 2.3 crashed over it.
CPUINFO = """\
processor\t: {core}
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd08
CPU revision\t: 3

"""
CORES = 4

# Told its own name, Python can start itself again (`sys.executable`); the arm64 program itself would not start here.
# A safe path keeps a checkout in the current folder from taking the place of the wheel.
PYTHON = """\
#!/bin/sh
export PYTHONHOME={root}/usr PYTHONPATH={packages} PYTHONSAFEPATH=1 PYTHONNOUSERSITE=1
exec {qemu} -0 {python} -L {root} -cpu cortex-a72 {root}/usr/bin/python3.11 "$@"
"""


def build() -> None:
    """Make the folder: the system once, the wheels each time."""
    qemu = shutil.which(QEMU)
    if qemu is None:
        sys.exit(f"The virtual Pi needs {QEMU}: `sudo apt-get install qemu-user-static`.")
    system = platform.freedesktop_os_release()
    if (system["ID"], system.get("VERSION_ID")) != ("debian", "12"):
        sys.exit(
            f"The virtual Pi is made from Debian 12's packages by this machine's apt; this is {system['PRETTY_NAME']}. "
            "Run it on Debian 12, or in a container of it."
        )
    unpacked = ROOT / "unpacked.txt"
    if not unpacked.exists() or unpacked.read_text() != "\n".join(DEBIAN_PACKAGES):
        unpack_debian()
        unpacked.write_text("\n".join(DEBIAN_PACKAGES))
    describe_processor()
    wheel = build_wheel()
    for runtime in RUNTIMES:
        install(runtime, wheel, qemu)
    print(f"The virtual Pi is in {FOLDER}. Times measured in it are qemu's, and say nothing of a Raspberry Pi.")


def unpack_debian() -> None:
    """Fetch the packages with an apt that has its own state, and unpack them without installing anything."""
    state = FOLDER / "apt"
    for folder in (state, ROOT):
        shutil.rmtree(folder, ignore_errors=True)
    for folder in ("lists/partial", "archives/partial"):
        (state / folder).mkdir(parents=True, exist_ok=True)
    (state / "status").touch()
    options = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        # Nothing is installed there, so apt resolves every dependency.
        "Dir::State::status": state / "status",
        "Dir::State": state,
        "Dir::Cache": state,
        "Acquire::Languages": "none",
        # Started by root, apt would fetch as another user, who may not write here.
        "APT::Sandbox::User": "",
    }
    apt = ["apt-get", "-q", *(f"-o{name}={value}" for name, value in options.items())]
    step("Reading Debian's list of arm64 packages", [*apt, "update"])
    wanted = ["install", "--yes", "--download-only", "--no-install-recommends", *DEBIAN_PACKAGES]
    step("Fetching arm64 packages", [*apt, *wanted])
    packages = sorted((state / "archives").glob("*.deb"))
    ROOT.mkdir()
    step(f"Unpacking {len(packages)} packages", *(["dpkg-deb", "--extract", str(p), str(ROOT)] for p in packages))


def describe_processor() -> None:
    """Put what the kernel of a Pi 4 says of its processor where qemu looks before this machine's own."""
    cpus = ROOT / "sys/devices/system/cpu"
    for folder in (ROOT / "proc", cpus):
        folder.mkdir(parents=True, exist_ok=True)
    (ROOT / "proc/cpuinfo").write_text("".join(CPUINFO.format(core=core) for core in range(CORES)))
    for name in ("possible", "present", "online"):
        (cpus / name).write_text(f"0-{CORES - 1}\n")


def build_wheel() -> Path:
    """The wheel that `pip install .` makes; from a copy, because setuptools packs what lay in build/ before."""
    copy, out = FOLDER / "source", FOLDER / "wheel"
    for folder in (copy, out):
        shutil.rmtree(folder, ignore_errors=True)
    copy.mkdir()
    for name in ("edge", "converters", "tfqrl"):
        shutil.copytree(SOURCE / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(SOURCE / name, copy)
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", str(out), str(copy)]
    step("Building tfqrl's wheel", pip)
    (wheel,) = out.glob("*.whl")
    return wheel


def install(runtime: str, wheel: Path, qemu: str) -> None:
    """Unpack the wheel and what it needs, for Python 3.11 on aarch64, and write the command that runs it."""
    folder = FOLDER / runtime
    shutil.rmtree(folder, ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "install", "--target", str(folder / "packages"), "--upgrade"]
    pip += ["--only-binary=:all:", "--implementation", "cp", "--python-version", "3.11"]
    pip += [f"--platform={tag}" for tag in WHEEL_PLATFORMS]
    packages = RUNTIMES[runtime]
    if packages is None:
        step(f"Installing tfqrl with its {runtime}", [*pip, str(wheel), PLANTS])
    else:
        step(f"Installing {runtime}", [*pip, *packages, PLANTS])
        step("Installing tfqrl beside it", [*pip, "--no-deps", str(wheel)])
    python = folder / "python"
    paths = {"root": ROOT, "packages": folder / "packages", "qemu": qemu, "python": python}
    python.write_text(PYTHON.format(**{name: shlex.quote(str(path)) for name, path in paths.items()}))
    python.chmod(0o755)


def step(title: str, *commands: Sequence[str]) -> None:
    """Run commands; what they print is shown only if one fails."""
    print(title, flush=True)
    for command in commands:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if done.returncode:
            sys.exit(f"{done.stdout}\nThe virtual Pi is not built: `{' '.join(command)}` failed; see above.")


if __name__ == "__main__":
    build()
