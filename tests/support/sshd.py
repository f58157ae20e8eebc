"""A device for `tfqrl deploy`: OpenSSH's server on loopback, run by the invoking user, with a home of its own."""

import os
import shutil
import socket
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

from tfqrl.wheel import archive

# Not on the PATH of ordinary users.
SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")

# There is no systemd and no root here: these record their calls, and `install` writes to a folder of the test's.
# tests/tfqrl/test_service.py has systemd itself look at the unit.
SUDO = """#!/bin/sh
[ -e {box}/no-sudo ] && exit 1
[ "$1" = -n ] && shift
echo "sudo $*" >> {box}/calls
command=$1; shift
for word; do shift; case $word in /etc/*) word="{box}$word" ;; esac; set -- "$@" "$word"; done
exec "$command" "$@"
"""
SYSTEMCTL = """#!/bin/sh
echo "systemctl $*" >> {box}/calls
case $1 in
    cat) cat {box}/etc/systemd/system/"$2" ;;
    is-enabled) [ -f {box}/etc/systemd/system/"$3" ] ;;
    is-active) [ -f {box}/active ] || exit 3; [ "$2" = --quiet ] || echo active ;;
    reset-failed) rm -f {box}/failed-too-often ;;
    restart) [ -e {box}/broken ] || [ -e {box}/failed-too-often ] && exit 1; touch {box}/active ;;
esac
"""


class Board:
    """The device.

    Attributes:
      home: the home folder of its user, with a space and a quote in its name.
      box: everything else of the test's: keys, logs, what the fake `sudo` and `systemctl` wrote.
      ssh: what to give to `tfqrl deploy --ssh`.
    """

    def __init__(self, folder: Path) -> None:
        self.box = folder
        self.home = folder / "pi's home"
        self.home.mkdir()
        self.base = self.home / ".local/share/tfqrl"
        (folder / "etc/systemd/system").mkdir(parents=True)
        (folder / "bin").mkdir()
        # The interpreter itself, not the venv that the tests run in.
        python = Path(sys.base_prefix) / "bin" / f"python{sys.version_info[0]}.{sys.version_info[1]}"
        self.put("python3", f'#!/bin/sh\nexec {python} "$@"\n')
        self.put("sudo", SUDO.format(box=folder))
        self.put("systemctl", SYSTEMCTL.format(box=folder))
        make_index(folder / "index")
        for name in ("host", "user", "stranger"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
        (folder / "authorized").write_bytes((folder / "user.pub").read_bytes())
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        variables = {
            "HOME": self.home,
            "PATH": f"{folder / 'bin'}:/usr/bin:/bin",
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": folder / "index",
            "PIP_CONFIG_FILE": os.devnull,
        }
        environment = " ".join(f'"{name}={value}"' for name, value in variables.items())
        (folder / "sshd_config").write_text(
            f"ListenAddress 127.0.0.1:{self.port}\nHostKey {folder / 'host'}\nPidFile none\n"
            f"AuthorizedKeysFile {folder / 'authorized'}\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n"
            f"KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\nSetEnv {environment}\n"
        )
        (folder / "known").write_text(f"[127.0.0.1]:{self.port} {(folder / 'host.pub').read_text()}")
        # One connection for all, as many people's configuration has it; it takes most of a test's time.
        self.ssh = f"{self.ssh_with()} -o ControlMaster=auto -o ControlPersist=60 -o ControlPath={folder / 'c'}"

    def ssh_with(self, *, key: str = "user", known: str = "known", port: int | None = None) -> str:
        return (
            f"ssh -F none -p {port or self.port} -i {self.box / key} -o IdentitiesOnly=yes -o IdentityAgent=none "
            f"-o UserKnownHostsFile={self.box / known} -o GlobalKnownHostsFile=/dev/null"
        )

    def put(self, name: str, text: str) -> Path:
        path = self.box / "bin" / name
        path.write_text(text)
        path.chmod(0o755)
        return path

    def calls(self) -> list[str]:
        """What `sudo` and `systemctl` were asked since the last time."""
        path = self.box / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return lines

    def __enter__(self) -> "Board":
        if os.geteuid() == 0:
            # sshd insists on it as root; a service manager makes it at boot.
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        command = [str(SSHD), "-D", "-f", str(self.box / "sshd_config"), "-E", str(self.box / "sshd.log")]
        self._server = subprocess.Popen(command)
        for _ in range(500):
            if self._server.poll() is not None:
                raise AssertionError((self.box / "sshd.log").read_text())
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            time.sleep(0.02)
        raise AssertionError("sshd does not listen")

    def __exit__(self, *details: object) -> None:
        subprocess.run([*self.ssh.split(), "-O", "exit", "127.0.0.1"], capture_output=True, check=False)
        self._server.terminate()
        self._server.wait()


def make_index(folder: Path) -> None:
    """Wheels of what tfqrl needs, for a device without a network: by name and version, with the files that are here."""
    folder.mkdir()
    site = Path(np.__file__).parents[1]
    for name in ("numpy", "ai-edge-litert", "cryptography"):
        stem = f"{name.replace('-', '_')}-{version(name)}"
        files = {
            f"{stem}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version(name)}\n".encode(),
            f"{stem}.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{name}-here.pth": f"{site}\n".encode(),
        }
        (folder / f"{stem}-py3-none-any.whl").write_bytes(archive(files, f"{stem}.dist-info"))
