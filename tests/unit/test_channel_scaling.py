"""Channel scaling: the float function stays, INT8 gains, and every refusal has its reason."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.builder import BuildState, build
from workbench.bundle import bundled
from workbench.calibration import calibrate, channel_groups, equalize, smooth
from workbench.config import BuilderConfig, Calibrator, OptimizationProfile
from workbench.datatypes import DataType
from workbench.errors import CalibrationError
from workbench.lab import range_findings
from workbench.network import NetworkDefinition
from workbench.onnx_parser import parse_model
from workbench.passes import fold
from workbench.records import ProgressMonitor, Stage
from workbench.reports import classification_accuracy, finding_rows
from workbench.session import Session, SetDefaultPrecision, SetOption, SetProfile

DIGITS = np.load(bundled("datasets", "digits.npz"))
PLAIN = bundled("datasets", "digits_cnn.onnx")
RESCALED = bundled("datasets", "digits_cnn_rescaled.onnx")


@functools.cache
def built(model, calibrator: Calibrator | None = None, **settings) -> BuildState:
    config = BuilderConfig()
    config.builder_optimization_level = 0
    shape = (1, 8, 8)
    config.add_optimization_profile(
        OptimizationProfile().set_shape("image", (1, *shape), (64, *shape), (64, *shape))
    )
    if calibrator is not None:
        config.default_precision, config.calibrator = DataType.INT8, calibrator
    for name, value in settings.items():
        setattr(config, name, value)
    data = {"image": DIGITS["calibration_images"]}
    return build(model, config, calibration=data if calibrator is not None else None)


def accuracy(state: BuildState) -> float:
    return classification_accuracy(state.engine(), DIGITS["test_images"], DIGITS["test_labels"])


def pair(first, second, *, depthwise=False, between="Relu") -> NetworkDefinition:
    """Two convolutions with an activation between them."""
    net = NetworkDefinition("pair")
    x = net.add_input("x", "FP32", ("n", first.shape[1], 6, 6))
    bias = np.arange(len(first), dtype=np.float32) - 2
    y = net.add_layer("Conv", [x, net.constant(first, "w1"), net.constant(bias, "b1")], name="one")
    z = net.add_layer(between, [y.outputs[0]], name="between")
    group = {"group": len(first)} if depthwise else {}
    net.mark_output(
        net.add_layer(
            "Conv", [z.outputs[0], net.constant(second, "w2")], group, name="two"
        ).outputs[0]
    )
    return net


def evaluated(net: NetworkDefinition, values: dict) -> np.ndarray:
    """The network run layer by layer by the typed reference."""
    known = {**values, **{n: t.weight.array for n, t in net.tensors.items() if t.is_constant}}
    for layer in net.layers:
        body = layer.body
        given = {i.name: known[t.name] for i, t in zip(body.inputs, layer.operands, strict=True)}
        made = body.substitute(body.bind({k: v.shape for k, v in given.items()})).evaluate(given)
        known.update({t.name: made[o] for o, t in zip(body.outputs, layer.outputs, strict=True)})
    return known[net.outputs[0].name]


# -- what must be shown ---------------------------------------------------------------------
@pytest.mark.parametrize("calibrator", Calibrator)
def test_int8_of_the_rescaled_digits_is_mended_by_equalisation(calibrator: Calibrator):
    float_accuracy = accuracy(built(RESCALED))
    assert float_accuracy == accuracy(built(PLAIN))
    assert accuracy(built(RESCALED, calibrator)) < float_accuracy - 50
    assert accuracy(built(RESCALED, calibrator, equalize_channels=True)) >= float_accuracy - 1


def test_smooth_scaling_mends_it_too_and_neither_harms_the_plain_network():
    float_accuracy = accuracy(built(PLAIN))
    for model, settings_ in (
        (RESCALED, {"smooth_alpha": 0.5}),
        (PLAIN, {"smooth_alpha": 0.5}),
        (PLAIN, {"equalize_channels": True}),
    ):
        assert accuracy(built(model, Calibrator.ENTROPY, **settings_)) >= float_accuracy - 1


def test_the_lab_finds_the_tensors_says_why_and_its_remedy_mends_them():
    state = built(RESCALED, Calibrator.MINMAX)
    findings = range_findings(state)
    # All that lies between convolutions; not the input image.
    assert {f.tensor for f in findings} == set(state.calibration.ranges) - {"image"}
    for f in findings:
        assert f.spread > 500
        assert f"{f.spread:.0f} to 1" in f.evidence
        assert f.setting == ("equalize_channels", True)
        assert "float function stays" in f.remedy
        assert f.weak_after == 0
    mended = built(RESCALED, Calibrator.MINMAX, **dict([findings[0].setting]))
    assert range_findings(mended) == ()
    assert accuracy(mended) >= accuracy(built(RESCALED)) - 1
    rows = finding_rows(findings)
    assert (rows["Weak channels (%)"] > 50).all()
    assert (rows["After remedy (%)"] == 0).all()


def test_a_network_that_quantizes_well_has_no_findings():
    assert range_findings(built(PLAIN, Calibrator.ENTROPY)) == ()
    with pytest.raises(CalibrationError, match="nothing was calibrated"):
        range_findings(built(PLAIN))


def test_what_no_scaling_can_mend_is_to_be_kept_in_a_wider_type_and_says_why():
    rng = np.random.default_rng(0)
    factors = 2.0 ** np.arange(-6, 6)
    first = (rng.standard_normal((12, 3, 3, 3)) * factors[:, None, None, None]).astype(np.float32)
    second = rng.standard_normal((4, 12, 3, 3)).astype(np.float32)
    net = pair(first, second, between="Softplus")
    for layer in net.layers:
        layer.origin = (layer.name,)
    net.model_nodes = tuple(x.name for x in net.layers)
    config = BuilderConfig()
    config.builder_optimization_level, config.default_precision = 0, DataType.INT8
    shape = (3, 6, 6)
    config.add_optimization_profile(
        OptimizationProfile().set_shape("x", (1, *shape), (4, *shape), (8, *shape))
    )
    data = {"x": rng.standard_normal((8, *shape)).astype(np.float32)}
    (found,) = range_findings(build(net, config, calibration=data))
    assert "Softplus 'between': it does not keep a factor per channel" in found.remedy
    assert found.code == "config.set_precision('two', 'BF16')"
    assert found.setting is None


# -- the float function ---------------------------------------------------------------------
def test_equalisation_and_smoothing_keep_every_bit_of_the_float_network():
    images = DIGITS["test_images"][:64]
    plain = built(RESCALED).engine().create_execution_context().run({"image": images})
    network = built(RESCALED).networks[Stage.FOLD]
    before = evaluated(network, {"image": images[:8]})
    scaled = network.clone()
    attempts = equalize(scaled)
    assert sum(a.applied for a in attempts) >= 3
    np.testing.assert_array_equal(evaluated(scaled, {"image": images[:8]}), before)
    smoothed = built(RESCALED, smooth_alpha=None, equalize_channels=True)
    again = smoothed.engine().create_execution_context().run({"image": images})
    np.testing.assert_array_equal(again["logits"], plain["logits"])


@given(st.integers(0, 10_000), st.booleans())
@settings(max_examples=15, deadline=None)
def test_any_pair_keeps_its_function_and_ends_with_equal_ranges(seed, depthwise):
    rng = np.random.default_rng(seed)
    spread = np.exp2(rng.uniform(-6, 6, 8))
    first = (rng.standard_normal((8, 3, 3, 3)) * spread[:, None, None, None]).astype(np.float32)
    second = rng.standard_normal((8, 1, 3, 3) if depthwise else (5, 8, 3, 3)).astype(np.float32)
    net = pair(first, second, depthwise=depthwise)
    x = {"x": rng.standard_normal((2, 3, 6, 6)).astype(np.float32)}
    before = evaluated(net, x)
    (attempt, *_) = equalize(net, verify="all")
    assert attempt.applied, attempt.reason
    np.testing.assert_array_equal(evaluated(net, x), before)
    w1, w2 = (net.layer(n).inputs[1].weight.array for n in ("one", "two"))
    made = np.abs(w1).max(axis=(1, 2, 3))
    read = np.abs(w2).max(axis=(1, 2, 3) if depthwise else (0, 2, 3))
    # Equal but for the rounding of s to a power of two: at most √2 on either side.
    assert (np.abs(np.log2(made / read)) <= 1 + 1e-6).all()


def test_factors_equal_the_papers_formula_rounded_to_powers_of_two():
    rng = np.random.default_rng(1)
    first = (rng.standard_normal((6, 3, 3, 3)) * 10.0 ** rng.integers(-2, 3, (6, 1, 1, 1))).astype(
        "f"
    )
    second = rng.standard_normal((4, 6, 3, 3)).astype(np.float32)
    net = pair(first, second)
    equalize(net)
    r1, r2 = np.abs(first).max(axis=(1, 2, 3)), np.abs(second).max(axis=(0, 2, 3))
    s = 2.0 ** np.rint(np.log2(np.sqrt(r1 * r2) / r2))
    np.testing.assert_array_equal(
        net.layer("one").inputs[1].weight.array, first / s[:, None, None, None].astype("f")
    )
    np.testing.assert_array_equal(
        net.layer("two").inputs[1].weight.array, second * s[None, :, None, None].astype("f")
    )


def test_smooth_factors_equal_smoothquants_formula_rounded_to_powers_of_two():
    rng = np.random.default_rng(2)
    net = NetworkDefinition("norm")
    x = net.add_input("x", "FP32", ("n", 5, 16))
    gamma = (10.0 ** rng.uniform(-2, 2, 16)).astype(np.float32)
    beta = rng.standard_normal(16).astype(np.float32)
    norm = net.add_layer(
        "LayerNormalization", [x, net.constant(gamma, "g"), net.constant(beta, "b")], name="norm"
    ).outputs[0]
    weights = [rng.standard_normal((16, 7)).astype(np.float32) for _ in range(2)]
    read = [
        net.add_layer("MatMul", [norm, net.constant(w, f"w{i}")], name=f"product{i}").outputs[0]
        for i, w in enumerate(weights)
    ]
    net.mark_output(net.add_layer("Add", read, name="sum").outputs[0])
    batch = {"x": rng.standard_normal((20, 5, 16)).astype(np.float32)}
    centred = batch["x"] - batch["x"].mean(-1, keepdims=True)
    y = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * gamma + beta
    measured = calibrate(
        [norm.name],
        [batch],
        lambda b, taps: {norm.name: y},
        calibrator=Calibrator.MINMAX,
        monitor=ProgressMonitor(),
        channel_axes={norm.name: 2},
    )
    before = evaluated(net, batch)
    (attempt, *_) = smooth(net, measured, alpha=0.7)
    assert attempt.applied, attempt.reason
    largest = np.abs(np.concatenate(weights, axis=1)).max(axis=1)
    s = np.abs(y).max(axis=(0, 1)) ** 0.7 / largest**0.3
    s = (2.0 ** np.rint(np.log2(s))).astype(np.float32)
    np.testing.assert_array_equal(net.layer("norm").inputs[1].weight.array, gamma / s)
    np.testing.assert_array_equal(net.layer("norm").inputs[2].weight.array, beta / s)
    np.testing.assert_array_equal(
        net.layer("product1").inputs[1].weight.array, weights[1] * s[:, None]
    )
    np.testing.assert_array_equal(evaluated(net, batch), before)


# -- groups and refusals --------------------------------------------------------------------
@pytest.mark.parametrize(
    ("model", "whole"), [("digits_cnn", 4), ("digits_inception", 9), ("digits_vit", 9)]
)
def test_the_groups_of_the_digits_networks_reach_every_layer_that_can_take_factors(model, whole):
    network = parse_model(bundled("datasets", f"{model}.onnx"))
    fold(network)
    groups = channel_groups(network)
    assert sum(g.refusal is None for g in groups) == whole
    assert all(g.refusal.reason for g in groups if g.refusal is not None)


def test_residual_branches_share_their_factors_and_concatenated_ones_have_their_own():
    network = parse_model(bundled("datasets", "digits_cnn.onnx"))
    fold(network)
    trunk = channel_groups(network)[0]
    assert [x.name for x in trunk.sources] == ["node_Conv_81", "node_Conv_83"]
    assert trunk.channels == 32
    network = parse_model(bundled("datasets", "digits_inception.onnx"))
    fold(network)
    joined = next(g for g in channel_groups(network) if g.channels == 96)
    ends = sorted(
        (joined.places[x.outputs[0].name].offset, joined.places[x.outputs[0].name].width)
        for x in joined.sources
    )
    assert ends == [(0, 16), (16, 32), (48, 32), (80, 16)]


def test_a_group_that_cannot_be_scaled_says_why():
    rng = np.random.default_rng(0)
    first, second = (rng.standard_normal((8, 8, 1, 1)).astype(np.float32) for _ in range(2))

    def reason(net: NetworkDefinition) -> str:
        return str(equalize(net)[0].refusal)

    assert "Sigmoid 'between'" in reason(pair(first, second, between="Sigmoid"))
    marked = pair(first, second)
    marked.mark_output(marked.layer("between").outputs[0])
    assert "is a network output" in reason(marked)
    even = pair(np.ones((8, 8, 1, 1), np.float32), np.ones((8, 8, 1, 1), np.float32))
    assert "equal within a factor of two" in reason(even)


def test_attempts_stand_in_the_ledger_of_calibrate_and_weights_keep_their_recipe():
    state = built(RESCALED, Calibrator.MINMAX, equalize_channels=True)
    attempts = [a for a in state.log.attempts if a.rule == "cross_layer_equalization"]
    assert {a.stage for a in attempts} == {Stage.CALIBRATE}
    applied = [a for a in attempts if a.applied]
    assert applied[0].place == ("node_Conv_81", "node_Conv_83", "node_Conv_82", "node_Conv_84")
    assert "32 channels divided by 2^" in applied[0].detail
    assert any("network output" in a.reason for a in attempts if not a.applied)
    assert not any(
        a.rule == "cross_layer_equalization"
        for a in built(RESCALED, Calibrator.MINMAX).log.attempts
    )
    weight = state.networks[Stage.CALIBRATE].tensor(
        "residual.first.conv.weight_bn_equal_equal.int8"
    )
    assert "residual.first.conv.weight" in weight.weight.model_weights


def test_a_session_recalibrates_when_scaling_is_switched_and_not_when_a_request_changes():
    session = Session(RESCALED, calibration={"image": DIGITS["calibration_images"][:32]})
    session.do(
        SetOption("tactic_sources", ("NUMPY",)),
        SetOption("builder_optimization_level", 0),
        SetProfile("image", (1, 1, 8, 8), (4, 1, 8, 8), (8, 1, 8, 8)),
    )
    plain = session.run(Stage.CALIBRATE).calibration
    session.do(SetOption("smooth_alpha", 0.5))
    smoothed = session.run(Stage.CALIBRATE).calibration
    assert smoothed.ranges["relu_1"].histogram.amax < plain.ranges["relu_1"].histogram.amax / 10
    session.do(SetDefaultPrecision(DataType.INT8))
    assert session.run(Stage.CALIBRATE).calibration is smoothed
    session.undo()
    session.undo()
    assert session.run(Stage.CALIBRATE).calibration is plain
