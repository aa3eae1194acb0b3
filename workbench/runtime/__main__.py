"""``python -m workbench.runtime PLAN --inputs NPZ [--expect NPZ]``: run a plan, nothing else.

With ``--expect`` the outputs must be bit-equal to those of the file; exit status 1 otherwise.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from workbench.errors import WorkbenchError
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
        engine = Runtime(options.device).deserialize(options.plan)
        outputs = engine.create_execution_context().run(dict(np.load(options.inputs)))
    except WorkbenchError as e:
        print(f"{type(e).__name__}: {e}", file=sys.stderr)
        return 1
    if options.save:
        np.savez(options.save, **cast(dict[str, Any], outputs))
    if options.expect:
        expected = dict(np.load(options.expect))
        for name, array in expected.items():
            if name not in outputs or outputs[name].tobytes() != array.tobytes():
                print(f"output '{name}' differs")
                return 1
        print(f"{len(expected)} outputs bit-equal, {engine.num_layers} layers")
    return 0


if __name__ == "__main__":
    sys.exit(main())
