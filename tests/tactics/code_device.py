"""A GPU of which only the compute capability is known: candidates and code need no more."""

from __future__ import annotations

from workbench.datatypes import DataType
from workbench.devices import Fingerprint


class CodeDevice:
    """Stands for a GPU of a compute capability, times ten; nothing runs on it."""

    kind = "gpu"

    def __init__(self, capability: int = 90) -> None:
        self.fingerprint = Fingerprint("gpu", f"sm_{capability}", (f"sm_{capability}",))

    def native(self, dtype: DataType) -> bool:
        return True
