"""Which GPUs a plan loads on at each hardware compatibility level, and what it says elsewhere."""

from __future__ import annotations

import pytest

from workbench.config import BuilderConfig
from workbench.devices import Fingerprint
from workbench.errors import ConfigError
from workbench.gpu_targets import HardwareCompatibilityLevel as Level
from workbench.gpu_targets import carried, least_capability, runnable, why_not_here
from workbench.session.actions import SetOption

H200 = Fingerprint("gpu", "NVIDIA H200", ("sm_90",))
H100 = Fingerprint("gpu", "NVIDIA H100", ("sm_90",))
A10 = Fingerprint("gpu", "NVIDIA A10", ("sm_86",))
BLACKWELL = Fingerprint("gpu", "NVIDIA B200", ("sm_100",))
T4 = Fingerprint("gpu", "Tesla T4", ("sm_75",))


@pytest.mark.parametrize("level", Level)
def test_every_level_loads_on_the_model_that_built_it(level):
    assert why_not_here(level, H200, H200) is None


def test_none_loads_on_no_other_model_and_names_the_levels_that_would():
    reason, remedy = why_not_here(Level.NONE, H200, H100)
    assert "NVIDIA H200" in reason and "NVIDIA H100" in reason
    assert "SAME_COMPUTE_CAPABILITY or AMPERE_PLUS" in remedy
    assert "SAME_COMPUTE" not in why_not_here(Level.NONE, H200, A10)[1]


def test_the_same_compute_capability_is_enough_where_it_was_asked_for():
    level = Level.SAME_COMPUTE_CAPABILITY
    assert why_not_here(level, H200, H100) is None
    assert "AMPERE_PLUS" in why_not_here(level, H200, A10)[1]


def test_ampere_plus_loads_from_8_0_on_and_nowhere_before():
    level = Level.AMPERE_PLUS
    assert [why_not_here(level, H200, g) for g in (A10, BLACKWELL, H100)] == [None] * 3
    assert "8.0 and later" in why_not_here(level, H200, T4)[0]


def test_every_gpu_that_ampere_plus_allows_runs_something_that_the_plan_carries():
    held = carried(Level.AMPERE_PLUS, 90)
    assert held[0] == "sm_90"
    for capability in (80, 86, 89, 90, 100, 120):
        assert set(held) & set(runnable(capability)), capability
    assert runnable(86) == ("sm_86", "sm_80", "compute_80")
    assert "sm_80" not in runnable(90), "machine code runs within its major version alone"
    assert carried(Level.NONE, 90) == carried(Level.SAME_COMPUTE_CAPABILITY, 90) == ("sm_90",)


def test_kernels_of_a_portable_plan_keep_to_what_ampere_has():
    assert least_capability(Level.AMPERE_PLUS, 90) == 80
    assert least_capability(Level.NONE, 90) == 90


def test_a_config_takes_a_level_by_name_writes_it_down_and_refuses_others():
    config = BuilderConfig()
    config.hardware_compatibility_level = "AMPERE_PLUS"
    assert config.hardware_compatibility_level is Level.AMPERE_PLUS
    assert BuilderConfig.from_json(config.to_json()) == config
    with pytest.raises(ConfigError, match="SAME_COMPUTE_CAPABILITY"):
        config.hardware_compatibility_level = "TURING"
    with pytest.raises(ConfigError, match="0 to 16"):
        config.max_aux_streams = -1


def test_a_session_sets_the_level_and_prints_code_that_does_so():
    action = SetOption("hardware_compatibility_level", "AMPERE_PLUS")
    config = BuilderConfig()
    action.apply(config)
    assert config.hardware_compatibility_level is Level.AMPERE_PLUS
    assert action.code() == "config.hardware_compatibility_level = 'AMPERE_PLUS'"
