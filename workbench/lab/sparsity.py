"""2:4 sparsity: which weights have it, pruning to it by magnitude, and what that costs.

Of every four neighbours along the summed axis at most two are not zero: what the matrix units of
NVIDIA's Ampere and later skip. Along input channels for a convolution, separately for each output
channel and place of its kernel. Source: Mishra et al., "Accelerating Sparse Deep Neural Networks",
2021.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from workbench.body import Array
from workbench.devices import Device
from workbench.lab.quality import Quality
from workbench.lab.trials import PrecisionTrials
from workbench.network import Layer, NetworkDefinition
from workbench.records import Progress, ProgressMonitor
from workbench.tactics import sources_for

GROUP, KEPT = 4, 2


@dataclass(frozen=True)
class WeightSparsity:
    """One product's weight. axis: the summed one, along which groups of four are counted.

    fitting: groups with at most two values that are not zero; zeros: share of all values. lost:
    share of the weight's energy (sum of squares) that pruning to 2:4 would take. blocker: why it
    cannot have 2:4 sparsity at all; then there are no groups.
    """

    layer: str
    op: str
    weight: str
    shape: tuple[int, ...]
    axis: int
    groups: int
    fitting: int
    zeros: float
    lost: float
    blocker: str = ""

    @property
    def is_sparse(self) -> bool:
        """Whether every group fits."""
        return self.groups > 0 and self.fitting == self.groups


@dataclass(frozen=True, eq=False)
class PrunedPoint:
    """The model with some layers pruned. pruned_share: of the weights that could be, in percent.

    quality: of the float build of the pruned network, beside the unpruned model.
    """

    layers: tuple[str, ...]
    pruned_share: float
    quality: Quality


def check_sparsity(network: NetworkDefinition) -> tuple[WeightSparsity, ...]:
    """Every product with a constant weight, in the network's order."""
    return tuple(_checked(x) for x in network.layers if _axis(x) is not None)


def prune(network: NetworkDefinition, layers: Sequence[str] | None = None) -> NetworkDefinition:
    """A copy whose products keep the two largest of every four weights; ``layers`` or all that can.

    The weights are new constants of the model, as if it had been trained so.
    """
    pruned = network.clone()
    for layer in list(pruned.layers):
        axis = _axis(layer)
        if axis is None or (layers is not None and layer.name not in layers):
            continue
        tensor = layer.inputs[1]
        if tensor is None or tensor.weight is None or _checked(layer).blocker:
            continue
        array = prune_array(tensor.weight.array, axis)
        name = pruned.unique(f"{tensor.name}.2of4")
        pruned.replace_input(layer, 1, pruned.constant(array, name))
    pruned.remove_unused_constants()
    return pruned


def prune_array(array: Array, axis: int) -> Array:
    """The two largest magnitudes of every four along an axis, zeros for the others.

    Of equal magnitudes the first is kept.
    """
    moved = np.moveaxis(array, axis, -1)
    fours = moved.reshape(*moved.shape[:-1], -1, GROUP)
    order = np.argsort(-np.abs(fours.astype(np.float64)), axis=-1, kind="stable")
    kept = np.zeros(fours.shape, np.bool_)
    np.put_along_axis(kept, order[..., :KEPT], True, axis=-1)
    zeroed = np.where(kept, fours, np.zeros((), array.dtype)).reshape(moved.shape)
    return np.ascontiguousarray(np.moveaxis(zeroed, -1, axis))


def pruning_curve(
    trials: PrecisionTrials, *, points: int = 5, monitor: ProgressMonitor | None = None
) -> tuple[PrunedPoint, ...]:
    """Quality against the share of weights pruned: the layers that lose least energy first.

    No retraining: what is lost here is what retraining would have to win back.
    """
    able = [w for w in check_sparsity(trials.network) if not w.blocker and not w.is_sparse]
    able.sort(key=lambda w: w.lost)
    sizes = {w.layer: int(np.prod(w.shape)) for w in able}
    counts = sorted({round(len(able) * i / max(points - 1, 1)) for i in range(points)})
    found: list[PrunedPoint] = []
    with Progress(monitor or ProgressMonitor(), "Prune", len(counts)) as progress:
        for count in counts:
            layers = tuple(w.layer for w in able[:count])
            quality = trials.quality_of_network(prune(trials.network, layers))
            share = 100.0 * sum(sizes[x] for x in layers) / max(sum(sizes.values()), 1)
            found.append(PrunedPoint(layers, share, quality))
            progress.step()
    return tuple(found)


def acceleration(device: Device) -> str:
    """What 2:4 sparsity gains on a device; said beside every table of it."""
    names = ", ".join(s.name for s in sources_for(device.kind))
    return f"checked, not accelerated: none of {names} has a kernel for 2:4 weights"


def _axis(layer: Layer) -> int | None:
    """The summed axis of a product's constant weight; None where there is none."""
    weight = layer.inputs[1] if layer.operator is not None and len(layer.inputs) > 1 else None
    if weight is None or weight.weight is None or not weight.dtype.is_float:
        return None
    if layer.op == "Conv":
        return 1
    if layer.op == "Gemm":
        return 1 if layer.attributes["transB"] else 0
    return len(weight.shape) - 2 if layer.op == "MatMul" and len(weight.shape) > 1 else None


def _checked(layer: Layer) -> WeightSparsity:
    axis, tensor = _axis(layer), layer.inputs[1]
    assert axis is not None and tensor is not None and tensor.weight is not None
    array = tensor.weight.array
    blocker, groups, fitting, lost = "", 0, 0, 0.0
    if array.shape[axis] % GROUP:
        blocker = f"axis {axis} has {array.shape[axis]} values, no multiple of {GROUP}"
    else:
        fours = np.moveaxis(array, axis, -1).reshape(-1, GROUP)
        filled = np.count_nonzero(fours, axis=1)
        groups, fitting = len(filled), int(np.sum(filled <= KEPT))
        energy = float(np.square(array.astype(np.float64)).sum())
        kept = float(np.square(prune_array(array, axis).astype(np.float64)).sum())
        lost = 1.0 - kept / energy if energy else 0.0
    zeros = float(np.mean(array == 0)) if array.size else 0.0
    shape = tuple(int(d) for d in array.shape)
    return WeightSparsity(
        *(layer.name, layer.op, tensor.name, shape, axis, groups, fitting, zeros, lost, blocker)
    )
