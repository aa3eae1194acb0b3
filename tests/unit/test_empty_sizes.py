"""Data that leaves nothing: a size that only the data decides comes out as zero."""

from __future__ import annotations

import numpy as np
from onnx import parser

from workbench.builder import run_stages, start
from workbench.config import BuilderConfig

TEXT = """
<ir_version: 10, opset_import: ["" : 21]>
g (float[3] x) => (float[k] y) <float zero = {0}, float ten = {10}>
{ keep = Greater(x, zero)  some = Compress<axis = 0>(x, keep)  y = Mul(some, ten) }
"""


def test_where_the_data_leaves_nothing_the_layers_behind_give_nothing():
    config = BuilderConfig()
    config.builder_optimization_level = 0
    config.num_threads = 1
    model = parser.parse_model(TEXT).SerializeToString()
    engine = run_stages(start(model, config)).engine()
    context = engine.create_execution_context()
    for given, wanted in (([-1, -2, -3], []), ([1, -2, 3], [10, 30]), ([-1, -1, -1], [])):
        made = context.run({"x": np.array(given, np.float32)})["y"]
        assert made.tolist() == wanted
        assert made.dtype == np.float32
