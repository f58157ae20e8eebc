"""The systemd unit of a policy that runs when the device does."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from edge.errors import UsageError
from edge.safety import Cause

# Groups that Debian and Raspberry Pi OS give their device files to; those that the device has are joined.
GROUPS = ("dialout", "gpio", "i2c", "spi", "video")
EDGETPU_GROUPS = ("apex", "plugdev")

# The line of the unit that says what it was made with, for the next deployment.
RUN_OPTIONS = "# --run-options "

# Written for systemd 247 (Debian 11) and later. Left out on purpose: PrivateDevices, which would hide the plant;
# ProtectKernelTunables, which would make sysfs read-only, where hardware PWM is; RestrictRealtime; and
# MemoryDenyWriteExecute, which is not known to suit every build of the interpreter.
UNIT = """\
# Written by `tfqrl deploy --service`, which replaces it. Keep changes of your own in `systemctl edit tfqrl-{name}`.
{run_options}
[Unit]
Description=tfqrl policy {name}
# A policy that fails again and again stays off: each start moves the plant.
StartLimitIntervalSec=3600
StartLimitBurst=5

[Service]
Type=notify
ExecStart={command}
User={user}
StateDirectory=tfqrl-{name}
WorkingDirectory=/var/lib/tfqrl-{name}
Restart=on-failure
RestartSec=1
# 129, 130, 143: ended by a signal, after the failsafe action. 2: a wrong option, which no restart cures.
# {stopped}: the plant was stopped, by an emergency stop for one; to release that must not start it.
SuccessExitStatus=129 130 143
RestartPreventExitStatus=2 {stopped}
WatchdogSec={watchdog_s:g}
TimeoutStopSec={stop_s:g}

# What real time needs, and no more.
AmbientCapabilities=CAP_SYS_NICE CAP_IPC_LOCK
CapabilityBoundingSet=CAP_SYS_NICE CAP_IPC_LOCK
LimitRTPRIO=99
LimitMEMLOCK=infinity

# What plants and meters need. vcio, which vcgencmd opens, by its path: newer kernels have no class of that name.
DevicePolicy=closed
DeviceAllow=char-ttyACM rw
DeviceAllow=char-ttyUSB rw
DeviceAllow=char-ttyAMA rw
DeviceAllow=char-ttyS rw
DeviceAllow=char-gpiochip rw
DeviceAllow=char-i2c rw
DeviceAllow=char-spi rw
DeviceAllow=/dev/vcio rw
{edgetpu}SupplementaryGroups={groups}
RestrictAddressFamilies={families}

NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=read-only
PrivateTmp=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectProc=invisible
RestrictNamespaces=yes
RestrictSUIDSGID=yes
LockPersonality=yes
RemoveIPC=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
UMask=0027

[Install]
WantedBy=multi-user.target
"""

# libusb hears of devices by netlink: the Coral stick is another one once it has its firmware.
EDGETPU = """\
DeviceAllow=char-apex rw
DeviceAllow=char-usb_device rw
"""


def unit(
    name: str,
    words: Sequence[str],
    run_options: Sequence[str],
    *,
    user: str,
    groups: Sequence[str],
    rate_hz: float | None = None,
    break_off_s: float = 0.0,
    edgetpu: bool = False,
) -> str:
    """The text of tfqrl-NAME.service.

    Args:
      name: of the policy, in letters that a unit's name may have.
      words: the command; its first word an absolute path.
      run_options: words of the command that the user gave; they are added to it.
      user: who runs it.
      groups: groups that the device has; those that the policy needs are joined.
      rate_hz: the loop's rate. The watchdog waits for 2 s, and a stop takes 10 s, or ten ticks if that is longer.
      break_off_s: how long the loop itself takes to end when a call of the plant never comes back; systemd, which would
        end it without a last failsafe action, waits longer.
      edgetpu: whether the policy runs on an Edge TPU.

    Raises:
      UsageError: a word has a control character in it.
    """
    ten_ticks_s = 0.0 if rate_hz is None else 10.0 / rate_hz
    return UNIT.format(
        name=name,
        command=" ".join(map(_quoted, [*words, *run_options])),
        run_options=RUN_OPTIONS + shlex.join(run_options),
        user=user,
        groups=" ".join(group for group in groups if edgetpu or group not in EDGETPU_GROUPS),
        stopped=Cause.PLANT_STOPPED.exit_code,
        watchdog_s=max(2.0, ten_ticks_s, 1.0 + 1.1 * break_off_s),
        stop_s=max(10.0, ten_ticks_s, 1.0 + 1.1 * break_off_s),
        edgetpu=EDGETPU if edgetpu else "",
        families="AF_UNIX AF_INET AF_INET6" + (" AF_NETLINK" if edgetpu else ""),
    )


def _quoted(word: str) -> str:
    """A word as ExecStart= reads it: C escapes in quotes, % for specifiers, $ for variables."""
    if not word.isprintable():
        raise UsageError(f"The service's command cannot have the control character in {word!r}.")
    for special, escaped in (("\\", "\\\\"), ('"', '\\"'), ("%", "%%"), ("$", "$$")):
        word = word.replace(special, escaped)
    return f'"{word}"'
