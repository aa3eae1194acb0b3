"""Where the bundled data lies: datasets/ and notebooks/, in the wheel or in the checkout."""

from __future__ import annotations

from pathlib import Path

from workbench.errors import WorkbenchError

_PACKAGE = Path(__file__).parent
_ROOTS = (_PACKAGE / "_data", _PACKAGE.parent)
"""The wheel's copy, then the checkout: an editable install has no force-included files."""


def bundled(*parts: str) -> Path:
    """The path of a bundled file or folder: ``bundled("datasets", "digits.npz")``.

    Raises WorkbenchError if it is in neither place.
    """
    for root in _ROOTS:
        path = root.joinpath(*parts)
        if path.exists():
            return path
    raise WorkbenchError(
        f"no such bundled file; looked in {' and '.join(map(str, _ROOTS))}",
        place="/".join(parts),
        remedy="reinstall inference-workbench, or install the checkout with pip install -e .",
    )
