"""Network + masks (+ scales) -> one packed file that runs fast on an ordinary CPU, without torch."""

from .export import to_onnx, to_openvino
from .packing import graph_of, is_quantised, pack

__all__ = ["graph_of", "is_quantised", "pack", "to_onnx", "to_openvino"]
