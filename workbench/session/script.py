"""The Python that does what a session's actions do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.devices import Device
from workbench.network import NetworkDefinition
from workbench.session.actions import EditNetwork, SetProfile

if TYPE_CHECKING:
    from workbench.session.session import Session


def script_of(session: Session) -> str:
    """A script that builds the same plan, beside the session's model, timings and data."""
    lines = ["from pathlib import Path", "", "import workbench as wb"]
    if any(isinstance(a, EditNetwork) for a in session.actions):
        lines.append("from workbench.network import remedies")
    lines.append("")
    lines.append(f"device = wb.open_device({_device_text(session.device)})")
    lines.append("config = wb.BuilderConfig()")
    if any(isinstance(a, SetProfile) for a in session.actions):
        lines.append("profile = wb.OptimizationProfile()")
        lines.append("config.add_optimization_profile(profile)")
    lines.extend(a.code() for a in session.actions)
    lines.append(
        f"config.timing_cache = wb.TimingCache.load({session.name + '.timing.json'!r}, "
        "device.fingerprint)"
    )
    lines.append("build = wb.build(")
    lines.append(f"    {_model_text(session)}")
    lines.append("    config,")
    lines.append("    device=device,")
    if session.calibration is not None:
        lines.append(f"    calibration={session.name + '.calibration.npz'!r},")
        lines.append(f"    calibration_cache={session.name + '.calibration.json'!r},")
    lines.append(")")
    lines.append(f"Path({session.name + '.plan'!r}).write_bytes(build.plan_bytes)")
    lines.append("print(build.sha256)")
    return "\n".join(lines) + "\n"


def _device_text(device: Device) -> str:
    """What opens it: a second GPU by its number."""
    index = getattr(device, "index", 0)
    return repr(f"{device.kind}:{index}" if index else device.kind)


def _model_text(session: Session) -> str:
    if isinstance(session.model, NetworkDefinition):
        return "network,  # the network that you made by hand"
    if isinstance(session.model, bytes):
        return repr(f"{session.name}.onnx") + ","
    return repr(str(session.model)) + ","
