"""Which operators only the host runs, also where the engine runs on a GPU, and why."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from workbench.operators import OPERATORS

_BY_FAMILY = MappingProxyType(
    {
        "control flow": "its bodies run as often as the data says",
        "sequences": "sequences and optionals are no tensors: they lie on the host",
        "data dependent": "the size of its result depends on the data",
        "strings": "strings lie on the host",
        "images": "it decodes a compressed file",
        "random": "NumPy's generator draws the numbers, as its seed says",
        "training": "a step of training: the interpreter runs it",
        "machine learning": "tables of labels and trees are walked value by value",
    }
)
_BY_NAME = MappingProxyType({"Dropout": "in training, NumPy's generator draws its mask"})

HOST_ON_GPU: Mapping[str, str] = MappingProxyType(
    {
        **{k: _BY_FAMILY[o.family] for k, o in OPERATORS.items() if o.family in _BY_FAMILY},
        **_BY_NAME,
    }
)
"""Operator -> why no GPU kernel runs it. Of the others it runs what a kernel refuses: complex
numbers, and integers divided by what may be 0 (the reference stops there, a kernel cannot)."""
