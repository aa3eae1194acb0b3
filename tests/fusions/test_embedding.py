import numpy as np
from sketch import Sketch, applied, refusal

from workbench.network import Tensor


def norm(s: Sketch, x: Tensor) -> Tensor:
    return s("LayerNormalization", x, s.weight(x.shape[-1]), s.weight(x.shape[-1]), name="norm")


def test_sums_of_embeddings_and_their_norm_are_one_layer() -> None:
    s = Sketch()
    words = s("Gather", s.weight(9, 8), s.value(np.array([[0, 8, 3]])), name="words")
    places = s("Gather", s.weight(5, 8), s("Shape", s.input(3, 1, 0)), name="places")
    s.output(norm(s, s("Add", words, places)))
    attempts = s.fuse()
    assert len(applied(attempts, "embedding")) == 2
    assert "Gather+Gather+Add+LayerNormalization" in s.operators()


def test_a_table_that_is_computed_is_refused() -> None:
    s = Sketch()
    table = s("Tanh", s.input(9, 8, name="table"))
    s.output(norm(s, s("Gather", table, s.value(np.array([1, 2])))))
    assert refusal(s.fuse(), "embedding")[0] == "not_constant"


def test_columns_of_a_table_are_no_embedding() -> None:
    s = Sketch()
    index = s.value(np.arange(8))
    s.output(norm(s, s("Gather", s.weight(9, 8, name="t"), index, axis=1, name="columns")))
    code, reason = refusal(s.fuse(), "embedding")
    assert code == "axes"
    assert "takes parts along axis 1" in reason


def test_an_embedding_that_the_residual_reads_too_is_written_as_well() -> None:
    s = Sketch()
    x = s("Gather", s.weight(9, 8), s("ArgMax", s.input("batch", 4, 9), axis=-1, keepdims=0))
    s.output(s("Add", s.linear(norm(s, x), 8, name="fc"), x))
    s.fuse()
    assert s.operators() == ["ArgMax", "Gather+LayerNormalization", "MatMul+Add"]


def test_a_marked_embedding_stays_a_layer() -> None:
    s = Sketch()
    x = s("Gather", s.weight(9, 8), s.value(np.array([1, 2])), name="words")
    s.output(norm(s, x), x)
    assert refusal(s.fuse(), "embedding")[0] == "marked_output"
