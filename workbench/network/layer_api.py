"""LayerApi: TensorRT's add_* calls, as far as our operators go."""

from __future__ import annotations


class LayerApi:
    """The add_* methods of a network definition."""
