"""ONNX in: OnnxParser, parse_model, and the reasons why a model is refused."""

from workbench.onnx_parser.parser import OnnxParser, parse_model
from workbench.onnx_parser.problems import ErrorCode, ParserErrorRecord

__all__ = ["ErrorCode", "OnnxParser", "ParserErrorRecord", "parse_model"]
