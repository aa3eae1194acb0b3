"""Split: one reorder for each output, from its part of the input."""

from __future__ import annotations

from collections.abc import Sequence

from workbench.body import CONSTANT, Node, TensorType
from workbench.datatypes import DataType
from workbench.errors import DeviceError
from workbench.formats import CHW16, HWC, LINEAR, Format
from workbench.records import Refusal
from workbench.tactics.onednn.constants import Argument, ElementType, Status
from workbench.tactics.onednn.descriptors import ELEMENT_TYPES, MemoryDescriptor
from workbench.tactics.onednn.layouts import has_tag, own
from workbench.tactics.onednn.library import Library
from workbench.tactics.onednn.primitives import Primitive, reorder
from workbench.tactics.onednn.recipe import describe_tensor
from workbench.tactics.onednn.steps import (
    InputSlot,
    OutputSlot,
    Slot,
    Step,
    Workspace,
    make_call,
    with_scratchpad,
)
from workbench.tactics.protocol import Call, Problem


def split_node(problem: Problem) -> Node | None:
    """The Split that a Body consists of, or None."""
    nodes = [n for n in problem.body.nodes if n.operator is not CONSTANT]
    if len(nodes) != 1 or nodes[0].op != "Split":
        return None
    return nodes[0] if problem.body.outputs == nodes[0].outputs else None


def split_layouts(problem: Problem, node: Node) -> Sequence[Format] | Refusal:
    """Layouts in which the parts can be cut out of the input, or why there is none."""
    (source,) = (i.type for i in problem.body.dynamic_inputs)
    if source.dtype not in ELEMENT_TYPES:
        return Refusal(f"oneDNN does not copy {source.dtype.value}", f"Split '{node.outputs[0]}'")
    rank = len(source.shape)
    parts = problem.body.output_types
    if not all(all(p.shape) for p in parts):
        return Refusal("a part is empty", f"Split '{node.outputs[0]}'")
    blocked = own(CHW16)
    inside = _axis(node, source) != 1
    whole_blocks = inside or all(p.shape[1] % blocked.block == 0 for p in parts[:-1])
    layouts = (LINEAR, HWC, blocked) if whole_blocks else (LINEAR, HWC)
    return [f for f in layouts if has_tag(f, rank)]


def make_split_call(library: Library, problem: Problem, node: Node, layout: Format) -> Call:
    """The reorders in a row."""
    (source,) = (i.type for i in problem.body.dynamic_inputs)
    element = _moved(source.dtype)
    whole = describe_tensor(library, source.shape, element, layout)
    axis = _axis(node, source)
    workspace = Workspace()
    steps: list[Step] = []
    offset = 0
    kernel = ""
    for k, type_ in enumerate(problem.body.output_types):
        offsets = [0] * len(source.shape)
        offsets[axis] = offset
        offset += type_.shape[axis]
        part = whole.part(type_.shape, offsets)
        target = describe_tensor(library, type_.shape, element, layout)
        primitive = _copy(part, target)
        kernel = kernel or primitive.implementation
        arguments: dict[int, tuple[MemoryDescriptor, Slot]]
        arguments = {Argument.SRC: (part, InputSlot(0)), Argument.DST: (target, OutputSlot(k))}
        steps.append(with_scratchpad(Step(primitive, arguments), workspace))
    return make_call(
        *(steps, kernel, library), threads=problem.threads, workspace_bytes=workspace.nbytes
    )


def _axis(node: Node, source: TensorType) -> int:
    return int(node.attributes["axis"]) % len(source.shape)


def _moved(dtype: DataType) -> ElementType:
    # Elements are only moved: bf16's copies are fast everywhere, f16's are not.
    return ElementType.BF16 if dtype is DataType.HALF else ELEMENT_TYPES[dtype]


def _copy(part: MemoryDescriptor, target: MemoryDescriptor) -> Primitive:
    found = reorder(part, target)
    if isinstance(found, Status):
        problem = f"oneDNN cannot copy {part.text} to {target.text}: {found.words}"
        raise DeviceError(problem, place="dnnl_reorder_primitive_desc_create")
    return Primitive(found)
