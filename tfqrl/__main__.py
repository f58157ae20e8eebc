"""The `tfqrl` command where it may be that only the edge is installed."""

from __future__ import annotations

import sys


def main() -> int:
    """Run `tfqrl.cli.main`, or say in one sentence what has to be installed for it."""
    try:
        from tfqrl import cli
    except ModuleNotFoundError as error:
        print(
            f"tfqrl: {error.name} is not installed. Training and converting need: pip install 'tfqrl[train]'",
            file=sys.stderr,
        )
        return 1
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
