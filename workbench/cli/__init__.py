"""The ``workbench`` command: one file per subcommand, listed in COMMANDS."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Sequence

from workbench import __version__
from workbench.cli import build, demo, doctor, lab, record, run, search
from workbench.errors import WorkbenchError

COMMANDS = (demo, lab, build, search, run, record, doctor)
"""Each module has NAME, HELP, ``arguments(parser)`` and ``main(options) -> exit code``."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; its exit code.

    A WorkbenchError is one message that names place, values and remedy, and exit code 1. Anything
    else that is raised is a fault of ours: shown whole, with the request to report it, and 70.
    """
    parser = argparse.ArgumentParser(prog="workbench", description="An inference workbench.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for module in COMMANDS:
        own = commands.add_parser(module.NAME, help=module.HELP, description=module.HELP)
        module.arguments(own)
        own.set_defaults(run=module.main)
    options = parser.parse_args(argv)
    return _explained(options.command, lambda: int(options.run(options)))


def _explained(command: str, act: Callable[[], int]) -> int:
    try:
        return act()
    except WorkbenchError as e:
        print(f"workbench {command}: {type(e).__name__}: {e}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"workbench {command}: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Who reads our output went away, as `head` does; Python's last flush must not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception:
        traceback.print_exc()
        print(
            f"workbench {command}: this is a fault of the workbench, not of what you gave it; "
            "please report it, with the lines above and the output of `workbench doctor`",
            file=sys.stderr,
        )
        return 70
