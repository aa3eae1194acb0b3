import pytest
from sketch import Sketch, applied, refusal


@pytest.mark.parametrize("swapped", [False, True])
def test_residual_joins_the_product_in_both_orders(swapped: bool) -> None:
    s = Sketch()
    x = s.input("batch", 4, 5, 5)
    y = s.conv(x, 4, name="conv")
    s.output(s("Add", *((x, y) if swapped else (y, x)), name="sum"))
    (attempt,) = applied(s.fuse(), "residual")
    assert attempt.place == ("conv", "sum")
    assert s.operators() == ["Conv+Add"]


def test_residual_of_two_convolutions_joins_one_of_them() -> None:
    s = Sketch()
    x = s.input("batch", 3, 5, 5)
    s.output(s("Add", s.conv(x, 4, name="main"), s.conv(x, 4, 1, name="shortcut"), name="sum"))
    attempts = s.fuse()
    assert len(applied(attempts, "residual")) == 1
    assert s.operators() == ["Conv", "Conv+Add"]


def test_residual_that_broadcasts_is_refused_with_both_shapes() -> None:
    s = Sketch()
    y = s.linear(s.input("batch", 5, 8), 6, name="fc")
    s.output(s("Add", y, s.input(5, 6, name="mask")))
    code, reason = refusal(s.fuse(), "residual")
    assert code == "shape_mismatch"
    assert reason == "'mask' has shape [5, 6], 'fc_out' has [batch, 5, 6]"


def test_residual_is_refused_when_the_sum_skips_over_another_reader() -> None:
    s = Sketch()
    x = s.input("batch", 6, 6)
    y = s.linear(x, 6, name="fc")
    s.output(s("Add", y, s("Softmax", y, name="soft"), name="sum"))
    code, reason = refusal(s.fuse(), "residual")
    assert code == "second_consumer"
    assert "Softmax 'soft'" in reason


def normalized(s: Sketch, dtype: str, *, read_twice: bool = False) -> None:
    x = s.input("batch", 8, 16, dtype=dtype)
    w = s.weight(16, 16, name="fc.w", dtype=dtype)
    total = s("Add", s("MatMul", x, w, name="fc"), x, name="sum")
    scale = s.weight(16, name="scale", dtype=dtype)
    s.output(s("LayerNormalization", total, scale, name="norm", axis=-1))
    if read_twice:
        s.output(s("Softmax", total, name="soft"))


def test_a_sum_of_16_bits_that_one_norm_reads_is_added_there_in_float32() -> None:
    s = Sketch()
    normalized(s, "float16")
    attempts = s.fuse()
    code, reason = refusal(attempts, "residual")
    assert code == "left_to_norm"
    assert "'norm' alone reads 'sum_out': it adds in float32" in reason
    assert s.operators() == ["MatMul", "Add+LayerNormalization"]


@pytest.mark.parametrize(("dtype", "twice"), [("float32", False), ("float16", True)])
def test_other_sums_before_a_norm_stay_with_the_product(dtype: str, twice: bool) -> None:
    s = Sketch()
    normalized(s, dtype, read_twice=twice)
    assert applied(s.fuse(), "residual")
    assert s.operators()[0] == "MatMul+Add"
