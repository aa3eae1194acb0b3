"""Names: makes names unique, each in constant time."""

from __future__ import annotations

from collections.abc import Iterable


class Names:
    """Names in use. A taken name gets ``_2``, ``_3``..."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = set(taken)
        self._next: dict[str, int] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._taken

    def claim(self, name: str) -> str:
        """``name`` or the next free one; it is then taken."""
        unique, k = name, self._next.get(name, 2)
        while unique in self._taken:
            unique, k = f"{name}_{k}", k + 1
        self._next[name] = k
        self._taken.add(unique)
        return unique
