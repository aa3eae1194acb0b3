"""OnnxParser and parse_model: an ONNX model, from bytes or a file, as a NetworkDefinition."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from os import PathLike
from pathlib import Path

from google.protobuf.message import DecodeError
from onnx import ModelProto

from workbench.dimensions import Dim, substitute
from workbench.errors import ParserError
from workbench.network import NetworkDefinition
from workbench.onnx_parser.accepted import accepted_opsets
from workbench.onnx_parser.blockers import blocked_nodes, further_reasons
from workbench.onnx_parser.equal_sizes import forced_sizes
from workbench.onnx_parser.importer import Importer
from workbench.onnx_parser.limits import MOST_BYTES, MOST_FILE_BYTES, Limits
from workbench.onnx_parser.problems import (
    UNEXPECTED,
    ErrorCode,
    ParserErrorRecord,
    all_reasons,
    refuse,
    unforeseen,
)
from workbench.onnx_parser.soundness import warnings_of
from workbench.onnx_parser.subgraphs import Subgraph, partitioned, producers_of
from workbench.onnx_parser.texts import first_that_is_no_text
from workbench.onnx_parser.weights import WeightReader


class OnnxParser:
    """Fills an empty network from an ONNX model, as TensorRT's OnnxParser does.

    A call that returns False has changed nothing in the network; the reasons are in the errors.
    max_loop_steps: iterations after which a Loop of the model counts as endless.
    max_tensor_bytes: the largest tensor that the model may compute at sizes that it fixes.
    """

    def __init__(
        self,
        network: NetworkDefinition,
        *,
        max_loop_steps: int | None = None,
        max_tensor_bytes: int = MOST_BYTES,
    ) -> None:
        self._network = network
        self._limits = Limits(max_loop_steps, max_tensor_bytes)
        self._errors: list[ParserErrorRecord] = []
        self._warnings: tuple[ParserErrorRecord, ...] = ()
        self._metadata: Mapping[str, str] = {}
        self._subgraphs: tuple[Subgraph, ...] = ()

    def parse(self, model: bytes, path: str | PathLike[str] = "") -> bool:
        """Parse a serialized model. path: its file, beside which external data is looked for."""
        self._errors.clear()
        self._warnings = ()
        parsed = self._imported(model, Path(path).parent if path else None)
        if parsed is None:
            return False
        self._warnings = warnings_of(parsed)
        parsed.warnings = tuple(map(str, self._warnings))
        self._network.adopt(parsed)
        return True

    def parse_from_file(self, path: str | PathLike[str]) -> bool:
        """Parse a file; external data may lie in its folder."""
        self._errors.clear()
        try:
            model = read_file(path)
        except ParserError as e:
            self._collect(e)
            return False
        return self.parse(model, path)

    def supports_model_v2(self, model: bytes, path: str | PathLike[str] = "") -> bool:
        """Whether ``parse`` would succeed; the network stays as it is.

        Where not, the errors are every reason, and the subgraphs say which parts would do.
        """
        self._errors.clear()
        return self._imported(model, Path(path).parent if path else None) is not None

    def supports_operator(self, op_name: str) -> bool:
        """Whether nodes of an operator are imported, at some opset; ``domain::name`` if not ONNX's.

        A node may still be refused for its attributes or types: see ``supports_model_v2``.
        """
        return bool(accepted_opsets(op_name))

    @property
    def num_subgraphs(self) -> int:
        """Subgraphs of the last model: 1 where all is supported, 0 where it is no valid model."""
        return len(self._subgraphs)

    def is_subgraph_supported(self, index: int) -> bool:
        """Whether every node of a subgraph is supported, or none is."""
        return self._subgraphs[index].supported

    def get_subgraph_nodes(self, index: int) -> list[int]:
        """Indices of its nodes in the model's graph, in order.

        Supported nodes of which no path through an unsupported one joins two are one subgraph. A
        node behind an unsupported one whose type the model does not declare was looked up in the
        operator tables only.
        """
        return list(self._subgraphs[index].nodes)

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the last model says of itself: producer, ir_version, opsets, its own entries."""
        return self._metadata

    @property
    def warnings(self) -> tuple[ParserErrorRecord, ...]:
        """What is odd about the last model that ``parse`` imported, such as weights with NaN."""
        return self._warnings

    @property
    def num_errors(self) -> int:
        """Reasons that the last call found."""
        return len(self._errors)

    def get_error(self, index: int) -> ParserErrorRecord:
        """One of them."""
        return self._errors[index]

    def clear_errors(self) -> None:
        """Forget them."""
        self._errors.clear()

    def _imported(self, data: bytes, folder: Path | None) -> NetworkDefinition | None:
        self._subgraphs = ()
        try:
            model = read_model(data)
        except ParserError as e:
            self._collect(e)
            return None
        self._metadata = _metadata(model)
        self._weights = WeightReader(folder)
        network, found = self._import(model)
        self._errors += found
        if blocked_nodes(found) is None:
            return None
        before = producers_of(model.graph)
        self._errors += further_reasons(model, found, lambda m: self._import(m)[1])
        self._errors.sort(key=lambda e: e.node)
        blocked = blocked_nodes(self._errors)
        self._subgraphs = () if blocked is None else partitioned(before, blocked)
        return None if self._errors else network

    def _import(self, model: ModelProto) -> tuple[NetworkDefinition, list[ParserErrorRecord]]:
        known: dict[str, Dim] = {}
        while True:
            network = NetworkDefinition(self._network.name or model.graph.name)
            importer = Importer(model, self._weights, network, self._limits, known)
            try:
                importer.run()
                more = {} if importer.problems else forced_sizes(network)
            except UNEXPECTED as e:
                return network, [*importer.problems, unforeseen(e)]
            if not more:
                return network, importer.problems
            known = {k: substitute(v, more) for k, v in known.items()} | more

    def _collect(self, error: ParserError) -> None:
        self._errors += [e for e in error.errors if isinstance(e, ParserErrorRecord)]


def _metadata(model: ModelProto) -> dict[str, str]:
    opsets = (f"{o.domain or 'ai.onnx'} {o.version}" for o in model.opset_import)
    return {
        **{p.key: p.value for p in model.metadata_props},
        "producer": f"{model.producer_name} {model.producer_version}".strip(),
        "ir_version": str(model.ir_version),
        "opsets": ", ".join(opsets),
    }


def parse_model(
    model: str | PathLike[str] | bytes,
    *,
    name: str = "",
    max_loop_steps: int | None = None,
    max_tensor_bytes: int = MOST_BYTES,
) -> NetworkDefinition:
    """The network of a model file, or of a model's bytes.

    name: of the network; the graph's own where it is left out. max_loop_steps, max_tensor_bytes:
    see ``OnnxParser``. Raises ParserError with every reason in ``errors``.
    """
    network = NetworkDefinition(name)
    parser = OnnxParser(network, max_loop_steps=max_loop_steps, max_tensor_bytes=max_tensor_bytes)
    if isinstance(model, bytes):
        place = name or "model"
        parsed = parser.parse(model)
    else:
        place = str(model)
        parsed = parser.parse_from_file(model)
    if not parsed:
        reasons = [parser.get_error(i) for i in range(parser.num_errors)]
        raise all_reasons(reasons, place=place)
    return network


def read_file(path: str | PathLike[str]) -> bytes:
    """The file's bytes. Raises ParserError naming it."""
    remedy = "give the path of an .onnx file"
    try:
        found = Path(path).stat()
        if not stat.S_ISREG(found.st_mode):
            refuse(
                ErrorCode.MODEL_DESERIALIZE_FAILED,
                "the file cannot be read: it is no regular file",
                rule="file",
                remedy=remedy,
            )
        if found.st_size > MOST_FILE_BYTES:
            refuse(
                ErrorCode.MODEL_DESERIALIZE_FAILED,
                f"the file has {found.st_size} bytes, protobuf reads {MOST_FILE_BYTES} at most",
                rule="file",
                remedy="save the model with its weights as external data, beside it",
            )
        return Path(path).read_bytes()
    except (OSError, ValueError, MemoryError) as e:
        # A ValueError is a zero byte in the path.
        refuse(
            ErrorCode.MODEL_DESERIALIZE_FAILED,
            f"the file cannot be read: {getattr(e, 'strerror', None) or e or 'out of memory'}",
            rule="file",
            remedy=remedy,
        )


def read_model(data: bytes) -> ModelProto:
    """The message. Raises ParserError where the bytes are not a whole ONNX model."""
    remedy = "the file is cut off, damaged, or no ONNX model; copy or export it again"
    try:
        model = ModelProto.FromString(data)
    except DecodeError:
        refuse(
            ErrorCode.MODEL_DESERIALIZE_FAILED,
            f"{len(data)} bytes are not one whole ONNX message",
            rule="protobuf",
            remedy=remedy,
        )
    if (text := first_that_is_no_text(model)) is not None:
        refuse(
            ErrorCode.MODEL_DESERIALIZE_FAILED,
            f"{len(data)} bytes hold the name {text!r}, which is not UTF-8 text",
            rule="protobuf",
            remedy=remedy,
        )
    missing = [
        what
        for what, there in (
            ("ir_version", model.ir_version > 0),
            ("graph", model.HasField("graph")),
            ("opset_import", len(model.opset_import) > 0),
        )
        if not there
    ]
    if missing:
        refuse(
            ErrorCode.MODEL_DESERIALIZE_FAILED,
            f"{len(data)} bytes hold a message without {', '.join(missing)}",
            rule="protobuf",
            remedy=remedy,
        )
    return model
