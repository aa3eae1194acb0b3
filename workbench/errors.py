"""Every error that the workbench raises on purpose.

WorkbenchError
├── ParserError               a model that cannot be imported; carries every reason at once
├── ExportError               a network that ONNX cannot express; carries every reason at once
├── NetworkError              an unsafe or impossible edit of a network
│   └── InferenceError        a layer whose input types or shapes contradict its operator
│       └── ValueNeeded       a layer whose output shape depends on a value not known yet
├── ConfigError               a BuilderConfig or OptimizationProfile that contradicts itself
├── CalibrationError          calibration data that cannot give a scale
├── BuildError                a build that cannot go on
│   ├── NoTacticError         no source can run a layer; carries every refusal
│   ├── PrecisionContractError  requested and executed precision differ
│   ├── TimingCacheError      a cache that belongs elsewhere, or a miss where none is allowed
│   └── BuildCancelled        the person asked to stop
├── PlanError                 a plan file that is damaged or does not fit this machine
├── RecordingError            a recorded build that is damaged, or of another version
├── ExecutionError            inputs that do not fit the engine, or a kernel that failed
├── DeviceError               a device or its library that is not there
├── FileError                 a file or folder that cannot be read or written
└── SessionError              an Action that cannot be taken now
"""

from __future__ import annotations

from collections.abc import Sequence


class WorkbenchError(Exception):
    """An error with its place, what is wrong (both values), and what would mend it.

    Printed as ``place: problem; remedy``.
    """

    def __init__(self, problem: str, *, place: str = "", remedy: str = "") -> None:
        self.problem = problem
        self.place = place
        self.remedy = remedy
        text = f"{place}: {problem}" if place else problem
        super().__init__(f"{text}; {remedy}" if remedy else text)


class ParserError(WorkbenchError):
    """A model that cannot be imported. ``errors`` lists every reason found, not just the first."""

    def __init__(
        self, problem: str, *, place: str = "", remedy: str = "", errors: Sequence[object] = ()
    ) -> None:
        super().__init__(problem, place=place, remedy=remedy)
        self.errors = tuple(errors)


class ExportError(WorkbenchError):
    """A network that cannot be written as ONNX. ``reasons`` lists every one found."""

    def __init__(
        self, problem: str, *, place: str = "", remedy: str = "", reasons: Sequence[str] = ()
    ) -> None:
        super().__init__(problem, place=place, remedy=remedy)
        self.reasons = tuple(reasons) or (problem,)


class NetworkError(WorkbenchError):
    """An edit that would leave the network invalid; nothing was changed."""


class InferenceError(NetworkError):
    """Input types or shapes that contradict the operator."""


class ValueNeeded(InferenceError):
    """An output's shape depends on the value of input ``index``, which is not known yet."""

    def __init__(self, problem: str, *, index: int, place: str = "", remedy: str = "") -> None:
        super().__init__(problem, place=place, remedy=remedy)
        self.index = index


class ConfigError(WorkbenchError):
    """A configuration that contradicts itself or the network."""


class CalibrationError(WorkbenchError):
    """Calibration data from which no scale can be computed; names tensor and batch."""


class BuildError(WorkbenchError):
    """A build that cannot go on."""


class NoTacticError(BuildError):
    """No tactic source can run a layer. ``refusals`` holds each source's reason."""

    def __init__(
        self, problem: str, *, place: str = "", remedy: str = "", refusals: Sequence[object] = ()
    ) -> None:
        super().__init__(problem, place=place, remedy=remedy)
        self.refusals = tuple(refusals)


class PrecisionContractError(BuildError):
    """Requested, built and executed precision of a layer differ."""


class TimingCacheError(BuildError):
    """A timing cache from another device, or a miss under ERROR_ON_TIMING_CACHE_MISS."""


class BuildCancelled(BuildError):
    """The progress monitor asked to stop; what was built so far is kept."""


class PlanError(WorkbenchError):
    """A plan that is damaged, of another version, or not for this machine."""


class RecordingError(WorkbenchError):
    """A recording that is damaged, of another version, or without what was asked for."""


class ExecutionError(WorkbenchError):
    """Inputs that do not fit the engine, or a kernel that failed."""


class DeviceError(WorkbenchError):
    """A device, driver or library that is not there."""


class FileError(WorkbenchError):
    """A file or folder of the user's that cannot be read or written; names it."""


class SessionError(WorkbenchError):
    """An Action that cannot be taken in the session's present state."""
