"""digits_cnn.onnx with its channels rescaled: the same float function, hard to quantize.

Writes digits_cnn_rescaled.onnx beside this file. Channels of the four tensors between convolutions
are multiplied by powers of two from 1 to 1024, in the batch norm that makes them, and the weights
that read them divided by the same. ReLU, max pooling and the mean keep a factor per channel, and
powers of two round nothing: every output bit stays. One INT8 scale for all channels is then far too
coarse for most of them.

Needs: onnx.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

HERE = Path(__file__).parent
SEED = 0
LARGEST = 1024
# Batch norms that make a tensor, and the weights that read it with their input-channel axis.
TENSORS = (
    (
        32,
        ("stem.bn", "residual.bn"),  # joined by the residual addition
        (("residual.first.conv.weight", 1), ("depthwise.conv.weight", 0)),
    ),
    (32, ("residual.first.bn",), (("residual.conv.weight", 1),)),
    (32, ("depthwise.bn",), (("pointwise.conv.weight", 1),)),
    (64, ("pointwise.bn",), (("classifier.weight", 1),)),
)


def rescaled(model: onnx.ModelProto, *, seed: int = SEED, largest: int = LARGEST) -> bytes:
    """The model's bytes with its channels rescaled by 1 to ``largest``."""
    weights = {t.name: t for t in model.graph.initializer}
    rng = np.random.default_rng(seed)

    def multiply(name: str, factors: np.ndarray, axis: int) -> None:
        old = numpy_helper.to_array(weights[name])
        shape = [-1 if a == axis else 1 for a in range(old.ndim)]
        new = np.ascontiguousarray(old * factors.reshape(shape), np.float32)
        weights[name].CopyFrom(numpy_helper.from_array(new, name))

    for channels, norms, readers in TENSORS:
        exponents = np.rint(np.linspace(0, np.log2(largest), channels))
        factors = 2.0 ** rng.permutation(exponents)
        for norm in norms:
            multiply(f"{norm}.weight", factors, 0)
            multiply(f"{norm}.bias", factors, 0)
        for weight, axis in readers:
            multiply(weight, 1 / factors, axis)
    return model.SerializeToString()


if __name__ == "__main__":
    data = rescaled(onnx.load(HERE / "digits_cnn.onnx"))
    (HERE / "digits_cnn_rescaled.onnx").write_bytes(data)
