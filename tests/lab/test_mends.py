"""What INT8 breaks in the rescaled digits, and what the lab finds to mend it."""

from __future__ import annotations

from digits_trials import digits_trials

import workbench as wb
from workbench.lab import (
    ChannelScaling,
    compare_settings,
    find_minimal_fix,
    range_findings,
)
from workbench.records import Stage

INT8 = wb.DataType.INT8


def test_the_lab_finds_and_explains_the_mend_of_rescaled_channels() -> None:
    trials = digits_trials("digits_cnn_rescaled", calibration=200, tests=400)
    plain = trials.measure(trials.lowered(INT8), INT8)
    reference = trials.reference_quality
    assert plain.quality.loss("accuracy", reference) > 50
    found = range_findings(trials.build(trials.lowered(INT8), until=Stage.CALIBRATE))
    worst = found[0]
    reader = trials.network.layer(worst.layers[0])
    assert worst.tensor in {t.name for t in reader.inputs if t is not None}
    assert f"{worst.spread:.0f} to 1" in str(worst)
    assert "cross-layer equalisation" in str(worst)
    settings = compare_settings(
        trials,
        calibrators=(wb.Calibrator.MINMAX, wb.Calibrator.ENTROPY),
        scalings=(ChannelScaling(), ChannelScaling(equalize=True)),
    )
    best = settings[0]
    assert best.scaling.equalize
    assert best.loss <= 1.0
    assert "config.equalize_channels = True" in best.code
    fix = find_minimal_fix(trials, 1.0, base=best.applied(trials.config))
    assert fix.layers == ()
    assert fix.loss <= 1.0
    assert fix.trial.coverage == "6 of 6 products in INT8"
