import numpy as np
from sketch import Sketch, applied, assert_same_outputs

from workbench.builder import build
from workbench.config import BuilderConfig, OptimizationProfile
from workbench.datatypes import DataType

ROWS = np.arange(24, dtype=np.float32).reshape(8, 3)


def masked() -> Sketch:
    """x + (the lower triangle of a square of ones, as many rows as x has) · ROWS[0..]."""
    s = Sketch()
    x = s.input("n", 3, name="x")
    n = s("Shape", x, start=0, end=1)
    square = s("Expand", s.value(np.ones((1, 1))), s("Concat", n, n, axis=0), name="square")
    mask = s("Trilu", square, upper=0, name="mask")
    places = s("Range", s.value(np.int64(0)), s("Squeeze", n), s.value(np.int64(1)), name="places")
    rows = s("Gather", s.value(ROWS), places, name="rows")
    s.output(s("Add", x, s("MatMul", mask, rows, name="sums"), name="y"))
    return s


def configured(level: int, precision: DataType = DataType.FLOAT) -> BuilderConfig:
    config = BuilderConfig()
    config.builder_optimization_level = level
    config.num_threads = 1
    config.default_precision = precision
    config.add_optimization_profile(OptimizationProfile().set_shape("x", (1, 3), (4, 3), (8, 3)))
    return config


def expected(rows: int) -> np.ndarray:
    return 1 + np.cumsum(ROWS[:rows], axis=0)


def test_what_reads_sizes_alone_becomes_one_layer() -> None:
    s = masked()
    s.fold()
    before = s.network.clone()
    assert len(applied(s.fuse(), "sizes_only")) == 4
    first, second = s.network.layers
    assert set(first.origin) == {"square", "mask", "places", "rows", "sums"}
    assert second.op == "Add"
    assert_same_outputs(before, s.network, {"x": np.ones((5, 3), np.float32)})


def test_a_value_that_two_layers_read_is_written_once() -> None:
    s = Sketch()
    x = s.input("n", "n", name="x")
    ones = s("Expand", s.value(np.ones((1, 1))), s("Shape", x), name="ones")
    low = s("Trilu", ones, upper=0, name="low")
    s.output(s("Add", s("Mul", x, s("Cos", low)), s("Mul", x, s("Softmax", low, name="soft"))))
    s.fold()
    s.fuse()
    (layer,) = (x for x in s.network.layers if "soft" in x.origin)
    assert sorted(layer.operator_names) == ["Cos", "Expand", "Softmax", "Trilu"]
    assert len(layer.outputs) == 2


def test_a_layer_that_reads_data_stays_apart() -> None:
    s = Sketch()
    x = s.input("n", "n", name="x")
    ones = s("Expand", s.value(np.ones((1, 1))), s("Shape", x), name="ones")
    s.output(s("MatMul", ones, x))
    s.fold()
    assert not applied(s.fuse(), "sizes_only")


def test_it_is_computed_when_the_sizes_are_bound_and_right_at_every_size() -> None:
    state = build(masked().network, configured(level=1))
    assert state.plan is not None
    assert "NUMPY once" in [step.tactic.title for step in state.plan.steps]
    context = state.engine().create_execution_context()
    for rows in (1, 4, 8, 4):
        (got,) = context.run({"x": np.ones((rows, 3), np.float32)}).values()
        np.testing.assert_allclose(got, expected(rows), rtol=1e-6)


def test_it_keeps_its_precision_where_another_is_asked_for() -> None:
    engine = build(masked().network, configured(0, DataType.HALF)).engine()
    given = {"x": np.ones((4, 3), np.float32)}
    (got,) = engine.create_execution_context().run(given).values()
    np.testing.assert_allclose(got, expected(4), rtol=2e-3)
