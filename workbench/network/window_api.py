"""The add_* calls that slide a window: convolution, deconvolution, pooling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from workbench.errors import NetworkError
from workbench.network.graph import Layer, Tensor
from workbench.network.layer_types import PaddingMode, PoolingType
from workbench.network.movement_api import MovementApi


class WindowApi(MovementApi):
    """Layers whose outputs each see a window of the input."""

    def add_convolution_nd(
        self,
        input: Tensor,
        num_output_maps: int,
        kernel_shape: Sequence[int],
        kernel: Any,
        bias: Any = None,
        *,
        stride_nd: Sequence[int] | None = None,
        padding_nd: Sequence[int] | None = None,
        pre_padding: Sequence[int] | None = None,
        post_padding: Sequence[int] | None = None,
        padding_mode: PaddingMode = PaddingMode.EXPLICIT_ROUND_DOWN,
        dilation_nd: Sequence[int] | None = None,
        num_groups: int = 1,
        name: str = "",
    ) -> Layer:
        """A convolution; kernel: (maps, channels / groups, *kernel_shape) in any shape."""
        spatial = tuple(kernel_shape)
        geometry = _geometry(
            spatial, stride_nd, padding_nd, pre_padding, post_padding, padding_mode, dilation_nd
        )
        weights = self._kernel(kernel, (num_output_maps, -1, *spatial))
        operands = [input, weights, *self._bias(bias)]
        return self.add_layer("Conv", operands, {**geometry, "group": num_groups}, name=name)

    def add_deconvolution_nd(
        self,
        input: Tensor,
        num_output_maps: int,
        kernel_shape: Sequence[int],
        kernel: Any,
        bias: Any = None,
        *,
        stride_nd: Sequence[int] | None = None,
        padding_nd: Sequence[int] | None = None,
        pre_padding: Sequence[int] | None = None,
        post_padding: Sequence[int] | None = None,
        padding_mode: PaddingMode = PaddingMode.EXPLICIT_ROUND_DOWN,
        dilation_nd: Sequence[int] | None = None,
        num_groups: int = 1,
        name: str = "",
    ) -> Layer:
        """A transposed convolution; kernel: (channels, maps / groups, *kernel_shape)."""
        spatial = tuple(kernel_shape)
        geometry = _geometry(
            spatial, stride_nd, padding_nd, pre_padding, post_padding, padding_mode, dilation_nd
        )
        weights = self._kernel(kernel, (-1, num_output_maps // num_groups, *spatial))
        operands = [input, weights, *self._bias(bias)]
        attributes = {**geometry, "group": num_groups}
        return self.add_layer("ConvTranspose", operands, attributes, name=name)

    def add_pooling_nd(
        self,
        input: Tensor,
        type: PoolingType,
        window_size: Sequence[int],
        *,
        stride_nd: Sequence[int] | None = None,
        padding_nd: Sequence[int] | None = None,
        pre_padding: Sequence[int] | None = None,
        post_padding: Sequence[int] | None = None,
        padding_mode: PaddingMode = PaddingMode.EXPLICIT_ROUND_DOWN,
        average_count_excludes_padding: bool = True,
        name: str = "",
    ) -> Layer:
        """The largest or the mean element of each window."""
        attributes = _geometry(
            tuple(window_size), stride_nd, padding_nd, pre_padding, post_padding, padding_mode, None
        )
        attributes["ceil_mode"] = int(padding_mode is PaddingMode.EXPLICIT_ROUND_UP)
        if type is PoolingType.MAX:
            return self.add_layer("MaxPool", [input], attributes, name=name)
        attributes["count_include_pad"] = int(not average_count_excludes_padding)
        return self.add_layer("AveragePool", [input], attributes, name=name)

    def _kernel(self, kernel: Any, shape: tuple[int, ...]) -> Tensor:
        if isinstance(kernel, Tensor):
            return kernel
        array = np.asarray(kernel)
        known = math.prod(d for d in shape if d > 0)
        if not array.size or array.size % known:
            raise NetworkError(f"kernel has {array.size} elements; they do not fill {shape}")
        return self.constant(array.reshape(shape), "kernel")

    def _bias(self, bias: Any) -> list[Tensor]:
        if bias is None or (not isinstance(bias, Tensor) and np.size(bias) == 0):
            return []
        return [bias if isinstance(bias, Tensor) else self.constant(np.ravel(bias), "bias")]


def _geometry(
    kernel: tuple[int, ...],
    stride: Sequence[int] | None,
    padding: Sequence[int] | None,
    before: Sequence[int] | None,
    after: Sequence[int] | None,
    mode: PaddingMode,
    dilation: Sequence[int] | None,
) -> dict[str, Any]:
    """ONNX's attributes of a window, all of them written out."""
    if padding is not None and (before is not None or after is not None):
        raise NetworkError("padding_nd and pre_padding or post_padding are given; use one")
    rank = len(kernel)
    even = tuple(padding) if padding is not None else (0,) * rank
    attributes: dict[str, Any] = {
        "kernel_shape": kernel,
        "strides": tuple(stride) if stride is not None else (1,) * rank,
        "dilations": tuple(dilation) if dilation is not None else (1,) * rank,
    }
    if mode in (PaddingMode.SAME_UPPER, PaddingMode.SAME_LOWER):
        return {**attributes, "auto_pad": mode.value}
    first = tuple(before) if before is not None else even
    last = tuple(after) if after is not None else even
    return {**attributes, "pads": (*first, *last)}
