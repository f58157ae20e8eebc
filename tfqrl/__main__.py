"""The `tfqrl` command where it may be that only the edge is installed."""

from __future__ import annotations

import sys

# What a command needs besides tfqrl[train], which every one of them does.
EXTRAS = {"hil-serve": "train,hil", "hil-keys": "train,hil"}


def main() -> int:
    """Run `tfqrl.cli.main`, or say in one sentence what has to be installed for it."""
    try:
        from tfqrl import cli
    except ModuleNotFoundError as error:
        command = " ".join(["tfqrl", *sys.argv[1:2]])
        extras = EXTRAS.get(sys.argv[1] if len(sys.argv) > 1 else "", "train")
        print(
            f"tfqrl: {error.name} is not installed. {command} needs: pip install 'tfqrl[{extras}]'",
            file=sys.stderr,
        )
        return 1
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
