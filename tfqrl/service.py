"""The systemd unit of a policy that runs when the device does."""

from __future__ import annotations

from collections.abc import Sequence

from edge.errors import UsageError

# Groups that Debian and Raspberry Pi OS give their device files to; those that the device has are joined.
GROUPS = ("dialout", "gpio", "i2c", "spi")

# Written for systemd 247 (Debian 11) and later. Left out on purpose: PrivateDevices, which would hide the plant;
# ProtectKernelTunables, which would make sysfs read-only, where hardware PWM is; RestrictRealtime; and
# MemoryDenyWriteExecute, which is not known to suit every build of the interpreter.
UNIT = """\
# Written by `tfqrl deploy --service`, which replaces it. Keep changes of your own in `systemctl edit tfqrl-{name}`.
[Unit]
Description=tfqrl policy {name}
# A policy that fails again and again stays off: each start moves the plant.
StartLimitIntervalSec=60
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
SuccessExitStatus=129 130 143
RestartPreventExitStatus=2
WatchdogSec={watchdog_s:g}
TimeoutStopSec=10

# What real time needs, and no more.
AmbientCapabilities=CAP_SYS_NICE CAP_IPC_LOCK
CapabilityBoundingSet=CAP_SYS_NICE CAP_IPC_LOCK
LimitRTPRIO=99
LimitMEMLOCK=infinity

# What plants need.
DevicePolicy=closed
DeviceAllow=char-ttyACM rw
DeviceAllow=char-ttyUSB rw
DeviceAllow=char-ttyAMA rw
DeviceAllow=char-ttyS rw
DeviceAllow=char-gpiochip rw
DeviceAllow=char-i2c rw
DeviceAllow=char-spi rw
SupplementaryGroups={groups}
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6

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


def unit(name: str, words: Sequence[str], *, user: str, groups: Sequence[str], rate_hz: float | None = None) -> str:
    """The text of tfqrl-NAME.service.

    Args:
      name: of the policy, in letters that a unit's name may have.
      words: the command; its first word an absolute path.
      user: who runs it.
      groups: groups of the device to join.
      rate_hz: the policy's control rate. The watchdog waits for 2 s, or for ten ticks if that is longer.

    Raises:
      UsageError: a word has a control character in it.
    """
    return UNIT.format(
        name=name,
        command=" ".join(map(_quoted, words)),
        user=user,
        groups=" ".join(groups),
        watchdog_s=2.0 if rate_hz is None else max(2.0, 10.0 / rate_hz),
    )


def _quoted(word: str) -> str:
    """A word as ExecStart= reads it: C escapes in quotes, % for specifiers, $ for variables."""
    if not word.isprintable():
        raise UsageError(f"The service's command cannot have the control character in {word!r}.")
    for special, escaped in (("\\", "\\\\"), ('"', '\\"'), ("%", "%%"), ("$", "$$")):
        word = word.replace(special, escaped)
    return f'"{word}"'
