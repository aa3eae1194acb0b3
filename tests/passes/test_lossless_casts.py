from sketch import Sketch, applied

from workbench.datatypes import DataType


def test_a_lossless_pair_in_the_model_goes_in_the_fold_stage() -> None:
    s = Sketch()
    y = s("Cast", s("Relu", s.input("batch", 3)), to=DataType.DOUBLE, name="up")
    s.output(s("Tanh", s("Cast", y, to=DataType.FLOAT, name="down")))
    attempts = s.fold()
    assert applied(attempts, "cast_pairs")
    assert s.operators() == ["Relu", "Tanh"]
    assert {"up", "down"} <= set(s.network.absorbed)
