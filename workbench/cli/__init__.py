"""The ``workbench`` command: one file per subcommand, listed in COMMANDS."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from workbench import __version__
from workbench.cli import build, demo, doctor, lab, run
from workbench.errors import WorkbenchError

COMMANDS = (demo, lab, build, run, doctor)
"""Each module has NAME, HELP, ``arguments(parser)`` and ``main(options) -> exit code``."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand. A WorkbenchError is printed in a line, never as a traceback."""
    parser = argparse.ArgumentParser(prog="workbench", description="An inference workbench.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for module in COMMANDS:
        own = commands.add_parser(module.NAME, help=module.HELP, description=module.HELP)
        module.arguments(own)
        own.set_defaults(run=module.main)
    options = parser.parse_args(argv)
    try:
        return int(options.run(options))
    except WorkbenchError as e:
        print(f"workbench {options.command}: {type(e).__name__}: {e}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"workbench {options.command}: stopped", file=sys.stderr)
        return 130
