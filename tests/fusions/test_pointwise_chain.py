from hypothesis import given, settings
from hypothesis import strategies as st
from sketch import Sketch, applied, refusal

UNARY = ("Relu", "Sigmoid", "Tanh", "Neg", "Abs", "Softplus")
BINARY = ("Add", "Mul", "Sub", "Max")


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


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_random_graphs_keep_their_meaning(data: st.DataObject) -> None:
    s = Sketch(data.draw(st.integers(0, 99)))
    values = [s.input("batch", 4, 4, 4)]
    for _ in range(data.draw(st.integers(3, 12))):
        kind = data.draw(st.sampled_from(["unary", "binary", "conv", "channel", "softmax"]))
        pick = st.sampled_from(values)
        x = data.draw(pick)
        match kind:
            case "unary":
                y = s(data.draw(st.sampled_from(UNARY)), x)
            case "binary":
                y = s(data.draw(st.sampled_from(BINARY)), x, data.draw(pick))
            case "conv":
                y = s.conv(x, 4, data.draw(st.sampled_from([1, 3])), name="conv")
            case "channel":
                y = s(data.draw(st.sampled_from(["Add", "Mul"])), x, s.weight(4, 1, 1))
            case _:
                y = s("Softmax", x)
        values.append(y)
    unread = [t for t in values if not t.users and not t.is_network_input]
    s.output(*unread, *([values[1]] if data.draw(st.booleans()) else []))
    s.fuse()
