"""ImageDecoder: encoded images as pixels. Pillow decodes them, imported when it is needed."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any

import numpy as np

from workbench.body import Array, Attributes, HostType, Inference, Operator, TensorType
from workbench.datatypes import DataType
from workbench.errors import InferenceError
from workbench.operators.rules import no_error

FORMATS = ("BMP", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""Those of the standard, as Pillow calls them; PPM is its name of all portable maps."""
_MODES = {"RGB": "RGB", "BGR": "RGB", "Grayscale": "L"}


def _types(inference: Inference) -> tuple[TensorType, ...]:
    x, form = inference.input(0), inference.attributes["pixel_format"]
    if form not in _MODES:
        raise InferenceError(f"pixel_format is {form!r}", remedy=f"known: {', '.join(_MODES)}")
    if x.dtype is not DataType.UINT8 or (not isinstance(x, HostType) and len(x.shape) != 1):
        raise InferenceError(f"input is {x}", remedy="give the file's bytes as UINT8, one axis")
    if find_spec("PIL") is None:
        raise InferenceError(
            "Pillow decodes images, and it is not installed",
            remedy="pip install 'inference-workbench[images]'",
        )
    channels = 1 if form == "Grayscale" else 3
    return (TensorType(DataType.UINT8, (inference.later(0), inference.later(1), channels)),)


def _decoded(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Array, ...]:
    """Height, width, channels; without any pixel where the bytes are no image."""
    from PIL import Image

    form = attributes["pixel_format"]
    file = io.BytesIO(inputs[0].tobytes())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged data, of which the result is to tell
            with Image.open(file, formats=FORMATS) as image:
                pixels = np.asarray(image.convert(_MODES[form]))
    # The standard asks for an empty result, whatever is wrong with the bytes.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return (np.zeros((0, 0, 1 if form == "Grayscale" else 3), np.uint8),)
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    return (np.ascontiguousarray(pixels[:, :, ::-1] if form == "BGR" else pixels),)


IMAGES: tuple[Operator, ...] = (
    Operator(
        name="ImageDecoder",
        infer=_types,
        reference=_decoded,
        bound=no_error,
        layer_type="IMAGE_DECODER",
        family="images",
        attributes=MappingProxyType({"pixel_format": "RGB"}),
        host=True,
    ),
)
