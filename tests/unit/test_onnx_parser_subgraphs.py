"""A partly supported model: every reason in one report, and the groups that would do."""

from __future__ import annotations

import itertools
import time

from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, parser

from workbench.network import NetworkDefinition
from workbench.onnx_parser import ErrorCode, OnnxParser
from workbench.onnx_parser.subgraphs import Subgraph, partitioned

HEAD = '<ir_version: 10, opset_import: ["" : 21, "my" : 1]>'


def asked(text: str | ModelProto) -> tuple[OnnxParser, bool]:
    model = parser.parse_model(HEAD + text) if isinstance(text, str) else text
    found = OnnxParser(NetworkDefinition())
    return found, found.supports_model_v2(model.SerializeToString())


def groups(found: OnnxParser) -> list[tuple[list[int], bool]]:
    return [
        (found.get_subgraph_nodes(i), found.is_subgraph_supported(i))
        for i in range(found.num_subgraphs)
    ]


# -- subgraphs ----------------------------------------------------------------------------
@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[set[int]], set[int]]:
    """Producers of each node, and the unsupported nodes."""
    count = draw(st.integers(0, 9))
    before = [
        draw(st.sets(st.integers(0, i - 1), max_size=3)) if i else set[int]() for i in range(count)
    ]
    return before, draw(st.sets(st.sampled_from(range(count)))) if count else set()


def reaches(edges: set[tuple[int, int]], count: int) -> list[set[int]]:
    """What each node leads to."""
    after: list[set[int]] = [set() for _ in range(count)]
    for i in reversed(range(count)):
        for a, b in edges:
            if a == i:
                after[i] |= {b} | after[b]
    return after


def has_cycle(groups_: list[set[int]], before: list[set[int]]) -> bool:
    """Whether the graph of groups has one: whatever has no producer left is removed, till none."""
    place = {n: k for k, g in enumerate(groups_) for n in g}
    makers = [{place[m] for n in g for m in before[n]} - {k} for k, g in enumerate(groups_)]
    left = set(range(len(groups_)))
    while ready := {k for k in left if not makers[k] & left}:
        left -= ready
    return bool(left)


@settings(max_examples=300, deadline=None)
@given(graphs())
def test_groups_cover_the_nodes_are_pure_convex_and_as_large_as_can_be(
    graph: tuple[list[set[int]], set[int]],
) -> None:
    before, unsupported = graph
    found = partitioned(before, unsupported)
    assert sorted(n for g in found for n in g.nodes) == list(range(len(before)))
    for g in found:
        assert list(g.nodes) == sorted(g.nodes)
        assert {n in unsupported for n in g.nodes} == {not g.supported}
    edges = {(m, i) for i, makers in enumerate(before) for m in makers}
    after = reaches(edges, len(before))
    for g in found:
        inside = set(g.nodes)
        between = set().union(*(after[n] for n in inside)) - inside
        assert not any(after[n] & inside for n in between), "a path leaves the group and comes back"
    sets = [set(g.nodes) for g in found]
    assert not has_cycle(sets, before)
    place = {n: k for k, s in enumerate(sets) for n in s}
    assert all(place[a] <= place[b] for a, b in edges), "the groups run in this order"
    for a, b in itertools.combinations([k for k, g in enumerate(found) if g.supported], 2):
        others = [s for k, s in enumerate(sets) if k not in (a, b)]
        # Unsupported nodes stand for themselves: only the supported groups are to be run whole.
        single = [{n} for k, s in enumerate(sets) if not found[k].supported for n in s]
        kept = [s for s in others if not s & unsupported]
        assert has_cycle([sets[a] | sets[b], *kept, *single], before), "two groups could be one"


def test_what_does_not_wait_for_an_unsupported_node_is_one_group() -> None:
    # 0 is unsupported and feeds 1; 2 stands alone.
    assert partitioned([set(), {0}, set()], {0}) == (
        Subgraph((0,), False),
        Subgraph((1, 2), True),
    )


def test_a_supported_model_is_one_subgraph() -> None:
    found, whole = asked("g (float[2] x) => (float[2] y) { a = Relu(x) y = Neg(a) }")
    assert whole
    assert groups(found) == [([0, 1], True)]


PARTLY = """g (float[2,3] x) => (float[2,3] y) <float[2,3] b, float[2,3] e>
{ a = Relu(x) b = my.Foo(a) c = Neg(b) [bad] d = MatMul(c, c) e = my.Bar(d) f = Abs(e)
  [worse] g1 = Conv(f, f) h = Abs(x) y = Add(h, e) }"""


def test_every_unsupported_node_is_in_one_report_also_behind_others() -> None:
    found, whole = asked(PARTLY)
    assert not whole
    errors = [found.get_error(i) for i in range(found.num_errors)]
    assert [(e.node, e.node_operator) for e in errors] == [
        (1, "my::Foo"), (3, "MatMul"), (4, "my::Bar"), (6, "Conv"),
    ]  # fmt: skip
    assert [e.node_name for e in errors] == ["Foo_1", "bad", "Bar_4", "worse"]
    assert "A has K=3, B has K=2" in errors[1].desc
    assert all(e.rule and e.remedy and e.file and e.func and e.line > 0 for e in errors)
    assert errors[0].code is ErrorCode.UNSUPPORTED_NODE
    assert groups(found) == [
        ([0, 7], True), ([1], False), ([2], True), ([3, 4], False), ([5, 8], True), ([6], False),
    ]  # fmt: skip


def test_parse_reports_the_same_reasons_and_changes_nothing() -> None:
    network = NetworkDefinition()
    found = OnnxParser(network)
    assert not found.parse(parser.parse_model(HEAD + PARTLY).SerializeToString())
    assert found.num_errors == 4
    assert not network.tensors


def test_what_an_unsupported_node_decides_is_not_blamed_on_its_reader() -> None:
    found, _ = asked(
        "g (float[6] x) => (float[2,3] y) <int64[1] r> "
        "{ r = my.Rank(x) y = Unsqueeze(x, r) z = Abs(y) }"
    )
    assert [found.get_error(i).node_operator for i in range(found.num_errors)] == ["my::Rank"]
    assert groups(found) == [([0], False), ([1, 2], True)]


def test_nodes_behind_a_value_without_type_are_looked_up_in_the_tables() -> None:
    found, _ = asked(
        "g (float[6] x) => (float[2] y) { a = my.Foo(x) b = Neg(a) c = Frobnicate(b) y = Abs(x) }"
    )
    errors = [found.get_error(i) for i in range(found.num_errors)]
    assert [e.node for e in errors] == [0, 2]
    assert groups(found) == [([0], False), ([1, 3], True), ([2], False)]


def test_a_graph_inside_a_node_counts_as_that_node_and_reads_what_it_captures() -> None:
    found, _ = asked(
        "g (bool c, float[2] x) => (float[2] y) { o = my.Foo(x) y = If(c) <"
        "then_branch = t () => (float[2] a) { a = Add(x, o) },"
        "else_branch = e () => (float[2] b) { b = my.Bar(x) }> z = Neg(x) }"
    )
    assert groups(found) == [([0, 1], False), ([2], True)]


def test_a_call_of_a_function_with_an_unsupported_node_is_unsupported() -> None:
    model = parser.parse_model(
        HEAD + "g (float[2] x) => (float[2] y) { a = my.Twice(x) y = Neg(a) }"
    )
    body = [helper.make_node("Foo", ["u"], ["v"], domain="your", name="inner")]
    model.functions.append(
        helper.make_function("my", "Twice", ["u"], ["v"], body, [helper.make_opsetid("your", 1)])
    )
    found, _ = asked(model)
    (error,) = [found.get_error(i) for i in range(found.num_errors)]
    assert error.local_function_stack == ("Twice",)
    assert error.node == 0
    assert groups(found) == [([0], False), ([1], True)]


def test_a_broken_model_has_no_subgraphs() -> None:
    for text in (
        "g (float[2] x) => (float[2] y) { y = Neg(a) }",
        "g (float[2] x) => (float[2] y) { x = Neg(x) y = Abs(x) }",
    ):
        found, whole = asked(text)
        assert not whole and found.num_errors
        assert found.num_subgraphs == 0
    found = OnnxParser(NetworkDefinition())
    assert not found.supports_model_v2(b"no model")
    assert found.num_subgraphs == 0


def test_subgraphs_belong_to_the_last_model() -> None:
    found, _ = asked(PARTLY)
    good = parser.parse_model(HEAD + "g (float[2] x) => (float[2] y) { y = Neg(x) }")
    assert found.supports_model_v2(good.SerializeToString())
    assert groups(found) == [([0], True)]
    assert found.num_errors == 0


def test_operators_are_known_by_name_and_domain() -> None:
    found = OnnxParser(NetworkDefinition())
    for name in ("Conv", "Upsample", "Attention", "CastLike", "If"):
        assert found.supports_operator(name)
    for name in ("Frobnicate", "my::Conv", "ai.onnx.ml::ZipMap"):
        assert not found.supports_operator(name)


def test_a_large_partly_supported_model_is_judged_in_seconds() -> None:
    count = 3000
    nodes = [
        helper.make_node("Foo" if i % 300 == 7 else "Neg", [f"v{i}"], [f"v{i + 1}"],
                         domain="my" if i % 300 == 7 else "")
        for i in range(count)
    ]  # fmt: skip
    infos = [helper.make_tensor_value_info(f"v{i}", TensorProto.FLOAT, [2]) for i in range(count)]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("v0", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info(f"v{count}", TensorProto.FLOAT, [2])],
        value_info=infos[1:],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("my", 1)]
    start = time.perf_counter()
    found, _ = asked(helper.make_model(graph, opset_imports=opsets))
    assert time.perf_counter() - start < 20
    assert found.num_errors == 10
    assert sum(supported for _, supported in groups(found)) == 11
