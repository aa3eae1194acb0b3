"""``python -m workbench.runtime PLAN --inputs NPZ [--expect NPZ]``: run a plan, nothing else.

With ``--expect`` the outputs must be bit-equal to those of the file; exit status 1 otherwise.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from workbench.body import Array
from workbench.errors import WorkbenchError
from workbench.files import read_npz, write_atomically
from workbench.runtime import Runtime


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 if it ran and, where asked for, the outputs are those expected."""
    parser = argparse.ArgumentParser(prog="python -m workbench.runtime")
    parser.add_argument("plan")
    parser.add_argument("--inputs", required=True)
    parser.add_argument("--expect")
    parser.add_argument("--save")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(argv)
    try:
        return _run(options)
    except WorkbenchError as e:
        print(f"{type(e).__name__}: {e}", file=sys.stderr)
        return 1


def _run(options: argparse.Namespace) -> int:
    engine = Runtime(options.device).deserialize(options.plan)
    outputs = engine.create_execution_context().run(read_npz(Path(options.inputs)))
    if options.save:
        data = io.BytesIO()
        np.savez(data, **outputs)
        write_atomically(Path(options.save), data.getvalue())
    if options.expect:
        return _compare(outputs, read_npz(Path(options.expect)), engine.num_layers)
    return 0


def _compare(outputs: dict[str, Array], expected: dict[str, Array], layers: int) -> int:
    for name, array in expected.items():
        # By bytes: an npz forgets bfloat16's name.
        given = outputs.get(name)
        if given is None or given.shape != array.shape or given.tobytes() != array.tobytes():
            print(f"output '{name}' differs")
            return 1
    plural = "s" if len(expected) > 1 else ""
    print(f"{len(expected)} output{plural} bit-equal, {layers} layers")
    return 0


if __name__ == "__main__":
    sys.exit(main())
