from sketch import Sketch, applied


def test_layers_that_nobody_reads_go_in_reverse_order() -> None:
    s = Sketch()
    x = s.input("batch", 3)
    s("Tanh", s("Relu", x, name="first"), name="last")
    s.output(s("Softmax", x))
    attempts = s.fold()
    assert [a.place for a in applied(attempts, "dead_layers")] == [("last",), ("first",)]
    assert s.operators() == ["Softmax"]
    assert s.network.absorbed["last"] == "nothing reads it (dead_layers)"


def test_a_marked_output_is_not_dead() -> None:
    s = Sketch()
    s.output(s("Relu", s.input("batch", 3)))
    assert not s.fold()
