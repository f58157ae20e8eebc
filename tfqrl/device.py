"""A device that is reached by the system's ssh."""

from __future__ import annotations

import shlex
import subprocess

from edge.errors import UsageError, UserError

# What the login shell's own start-up files print comes before this line.
_OUTPUT = "tfqrl: output begins"

# Ours come last: of an option that is given twice, ssh takes the first, which lets --ssh decide otherwise.
# BatchMode: fail rather than ask for a password or about a host key. The others: fail rather than wait for ever.
_OPTIONS = ("-T", "-oBatchMode=yes", "-oConnectTimeout=10", "-oServerAliveInterval=15", "-oServerAliveCountMax=4")

# Every script runs in this one's shell and folder.
_PRELUDE = f"""
set -eu
umask 022
base=$HOME/.local/share/tfqrl
echo '{_OUTPUT}'
"""


class DeviceError(UserError):
    """The device cannot be reached, or refuses what was asked of it."""


class Device:
    """Runs shell scripts on `host`, with the configuration, keys and known hosts of the user's ssh."""

    def __init__(self, host: str, ssh: str = "ssh") -> None:
        """Name the device; nothing is connected yet.

        Args:
          host: what ssh takes: a name or address, a `Host` of ~/.ssh/config, with or without a user.
          ssh: the command, with options if need be, such as "ssh -p 2222 -i key".

        Raises:
          UsageError: `host` could be taken for an option, or `ssh` has an open quote.
        """
        name = host.rpartition("@")[2]
        if not name or host.startswith("-") or name.startswith("-") or not host.isprintable() or " " in host:
            raise UsageError(
                f"{host!r} is no device. Give one as ssh takes it: pi@192.168.1.7, or a Host of its config."
            )
        try:
            self._ssh = shlex.split(ssh)
        except ValueError as error:
            raise UsageError(f"--ssh cannot be read: {error}; it was given {ssh!r}.") from error
        if not self._ssh:
            raise UsageError('--ssh takes a command, such as "ssh -p 2222"; it was given nothing.')
        self.host = host

    def run(self, script: str, *words: str, data: bytes = b"") -> str:
        """Run a POSIX shell script there; returns what it printed.

        Args:
          script: finds `words` in $1, $2, ... and the device's folder of tfqrl in $base; stops at the first failure.
          words: any text; quoted, so that no shell reads anything into it.
          data: what the script finds at its standard input.

        Raises:
          DeviceError: there is no ssh, no connection, or the script failed; its last lines on stderr say why.
        """
        remote = " ".join(shlex.quote(word) for word in ("sh", "-c", _PRELUDE + script, "tfqrl", *words))
        command = [*self._ssh, *_OPTIONS, "--", self.host, remote]
        try:
            done = subprocess.run(command, input=data, capture_output=True, check=False)
        except OSError as error:
            raise DeviceError(
                f"{self._ssh[0]} cannot be run: {error.strerror or error}. Install it (apt install openssh-client)."
            ) from error
        output, errors = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace").strip()
        if done.returncode == 255:
            raise self._no_connection(errors)
        if done.returncode:
            raise self._refusal(errors, done.returncode)
        _, begins, result = output.partition(_OUTPUT + "\n")
        if not begins:
            raise DeviceError(
                f"{self.host} let us in and ran nothing. Is a command tied to this key there, or the account without a "
                f"shell? `ssh {self.host} echo hello` has to say hello."
            )
        return result

    def _no_connection(self, errors: str) -> DeviceError:
        reason = errors.splitlines()[-1].rstrip(".") if errors else "the connection ended"
        if "Host key verification failed" in errors:
            cure = f"Its host key is not known here, or has changed: `ssh {self.host}` once by hand, and compare it."
        elif "Permission denied" in errors:
            cure = f"Give it your key first: `ssh-copy-id {self.host}`; one with a passphrase has to be in ssh-agent."
        else:
            cure = "Is it on, in this network, and its ssh enabled?"
        return DeviceError(f"No connection to {self.host}: {reason}. {cure}")

    def _refusal(self, errors: str, code: int) -> DeviceError:
        if "No space left on device" in errors:
            return DeviceError(f"{self.host} has no space left. Make room in its home folder and deploy again.")
        reason = "\n".join(errors.splitlines()[-5:]) or f"a command ended with exit code {code} and said nothing"
        return DeviceError(f"{self.host}: {reason}")
