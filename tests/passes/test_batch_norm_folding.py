import numpy as np
import pytest
from sketch import Sketch, applied, refusal


@pytest.mark.parametrize("bias", [False, True])
def test_batch_norm_folds_into_the_convolution(bias: bool) -> None:
    s = Sketch()
    more = [s.weight(4, name="b")] if bias else []
    x = s.input("batch", 3, 6, 6)
    y = s("Conv", x, s.weight(4, 3, 3, 3, name="w"), *more, name="conv")
    s.output(s("Relu", s.norm(y, name="bn")))
    (attempt,) = applied(s.fold(), "batch_norm_folding")
    assert attempt.place == ("conv", "bn")
    assert s.operators() == ["Conv", "Relu"]
    layer = s.network.layer("conv")
    assert layer.origin == ("conv", "bn")
    assert s.network.absorbed["bn"] == "weight w_bn (batch_norm_folding)"
    assert set(layer.inputs[1].weight.model_weights) == {"w", "bn.scale", "bn.var"}
    names = layer.inputs[2].weight.model_weights
    assert set(names) == {"bn.scale", "bn.bias", "bn.mean", "bn.var", *(["b"] if bias else [])}


def test_the_recipe_gives_the_folded_weight_again() -> None:
    s = Sketch()
    s.output(s.norm(s.conv(s.input("batch", 3, 6, 6), 4, name="conv"), name="bn"))
    s.fold()
    weight = s.network.layer("conv").inputs[1].weight
    recipe = weight.recipe
    given = {i.name: w.array for i, w in zip(recipe.body.inputs, recipe.sources, strict=True)}
    (again,) = recipe.body.evaluate(given).values()
    np.testing.assert_array_equal(again, weight.array)


def test_batch_norm_folds_into_a_transposed_convolution_and_a_gemm() -> None:
    s = Sketch()
    x = s.input("batch", 3, 5, 5)
    s.output(s.norm(s("ConvTranspose", x, s.weight(3, 4, 2, 2), name="up"), name="bn1"))
    v = s.input("batch", 7, name="v")
    for trans in (0, 1):
        w = s.weight(*((5, 7) if trans else (7, 5)), name=f"w{trans}")
        y = s("Gemm", v, w, s.weight(5, name="c"), name=f"fc{trans}", transB=trans, alpha=0.5)
        s.output(s.norm(y, name=f"bn_fc{trans}"))
    assert len(applied(s.fold(), "batch_norm_folding")) == 3
    assert sorted(s.operators()) == ["ConvTranspose", "Gemm", "Gemm"]


def test_batch_norm_whose_convolution_is_read_elsewhere_becomes_mul_and_add() -> None:
    s = Sketch()
    y = s.conv(s.input("batch", 3, 6, 6), 4, name="conv")
    s.output(s.norm(y, name="bn"), s("Softmax", y, name="soft"))
    attempts = s.fold()
    code, reason = refusal(attempts, "batch_norm_folding")
    assert code == "second_consumer"
    assert "Softmax 'soft'" in reason
    assert applied(attempts, "batch_norm_lowering")
    assert s.operators() == ["Conv", "Mul", "Add", "Softmax"]


def test_batch_norm_of_an_input_becomes_mul_and_add_of_the_same_origin() -> None:
    s = Sketch()
    s.output(s("Relu", s.norm(s.input("batch", 3, 6, 6), name="bn")))
    s.fold()
    assert s.operators() == ["Mul", "Add", "Relu"]
    assert [x.origin for x in s.network.layers[:2]] == [("bn",), ("bn",)]


def test_weights_that_are_inputs_are_refused_by_name() -> None:
    s = Sketch()
    y = s("Conv", s.input("batch", 3, 6, 6), s.input(4, 3, 3, 3, name="given"), name="conv")
    s.output(s.norm(y, name="bn"))
    attempts = s.fold()
    code, reason = refusal(attempts, "batch_norm_folding")
    assert code == "not_constant"
    assert "'given'" in reason


def test_a_marked_convolution_keeps_its_output() -> None:
    s = Sketch()
    y = s.conv(s.input("batch", 3, 6, 6), 4, name="conv")
    s.output(y, s.norm(y, name="bn"))
    assert refusal(s.fold(), "batch_norm_folding")[0] == "marked_output"
