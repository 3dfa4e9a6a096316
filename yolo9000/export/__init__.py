"""Detectors as files for other runtimes: torch.export (.pt2), ONNX, OpenVINO."""

from yolo9000.export.files import FORMATS, STAGES, export

__all__ = ["FORMATS", "STAGES", "export"]
