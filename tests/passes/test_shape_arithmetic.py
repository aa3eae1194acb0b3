import numpy as np
from sketch import Sketch, applied


def test_a_reshape_to_computed_sizes_needs_no_computing() -> None:
    s = Sketch()
    x = s.input("batch", 3, 4)
    batch = s("Slice", s("Shape", x, name="shape"), s.value(np.array([0])), s.value(np.array([1])),
              name="first")  # fmt: skip
    y = s("Reshape", s("Relu", x), s("Concat", batch, s.value(np.array([12])), name="join", axis=0))
    s.output(s("Softmax", y))
    attempts = s.fold()
    assert applied(attempts, "shape_arithmetic")
    assert s.operators() == ["Relu", "Reshape", "Softmax"]
    assert str(s.network.outputs[0].shape) == "(batch, 12)"
    for node in ("shape", "first", "join"):
        assert s.network.absorbed[node] == "its value is known at build time (dead_layers)"


def test_the_detached_layer_runs_at_any_batch() -> None:
    s = Sketch()
    x = s.input("batch", 3, 4)
    s.output(s("Softmax", s("Reshape", x, s("Concat", s("Shape", x, end=1), s.value(np.array([12])),
                                            axis=0))))  # fmt: skip
    s.fold()
    for batch in (1, 5):
        given = np.ones((batch, 3, 4), np.float32)
        assert next(iter(s.network.run({"x": given}).values())).shape == (batch, 12)


def test_a_shape_that_the_caller_wants_is_still_computed() -> None:
    s = Sketch()
    x = s.input("batch", 3)
    shape = s("Shape", x)
    s.output(shape, s("Reshape", s("Relu", x), shape))
    s.fold()
    assert "Shape" in s.operators()
