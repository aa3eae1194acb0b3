from sketch import Sketch, applied, refusal


def test_a_chain_becomes_one_layer_without_an_anchor() -> None:
    s = Sketch()
    x = s.input("batch", 7)
    s.output(s("Tanh", s("Mul", s("Relu", x, name="a"), x, name="b"), name="c"))
    attempts = s.fuse()
    assert len(applied(attempts, "pointwise_chain")) == 2
    (layer,) = s.network.layers
    assert layer.op == "Pointwise"
    assert layer.body.anchor is None
    assert layer.origin == ("a", "b", "c")


def test_a_diamond_closes() -> None:
    s = Sketch()
    y = s("Relu", s.input("batch", 7))
    s.output(s("Add", s("Sigmoid", y), s("Tanh", y)))
    attempts = s.fuse()
    assert s.network.num_layers == 1
    assert all(a.applied for a in attempts)


def test_a_chain_stops_where_a_value_is_read_elsewhere() -> None:
    s = Sketch()
    y = s("Relu", s.input("batch", 7), name="first")
    s.output(s("Tanh", y), s("Softmax", y, name="soft"))
    code, reason = refusal(s.fuse(), "pointwise_chain")
    assert code == "second_consumer"
    assert "Softmax 'soft'" in reason


def test_a_chain_is_refused_where_a_small_value_is_broadcast() -> None:
    s = Sketch()
    small = s("Tanh", s.input(7, name="row"), name="small")
    s.output(s("Mul", s.input("batch", 7), small))
    code, reason = refusal(s.fuse(), "pointwise_chain")
    assert code == "shape_mismatch"
    assert "[7]" in reason
    assert s.network.num_layers == 2


def test_a_chain_is_cut_at_the_limit_of_nodes() -> None:
    s = Sketch()
    y = s.input("batch", 3)
    for _ in range(60):
        y = s("Tanh", y)
    s.output(y)
    attempts = s.fuse()
    assert s.network.num_layers == 2
    assert refusal(attempts, "pointwise_chain")[0] == "too_large"
