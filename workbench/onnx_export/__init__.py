"""ONNX out: any network, at any stage, as a strongly typed model that other engines read."""

from workbench.onnx_export.export import export_onnx
from workbench.onnx_export.trtexec import trtexec_line
from workbench.onnx_parser.schemas import OPSET

__all__ = ["OPSET", "export_onnx", "trtexec_line"]
