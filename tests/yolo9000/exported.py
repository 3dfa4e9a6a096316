"""Exported files run by their own runtimes, for tests: nothing here calls this package's detector but to say
what is right."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from yolo9000.detections import Detections
from yolo9000.detector import Detector
from yolo9000.export import FORMATS
from yolo9000.letterbox import letterbox
from yolo9000.options import Options

RUNTIMES = {"pt2": "torch", "onnx": "onnxruntime", "openvino": "openvino"}


def needs(format: str) -> None:
    """A skip that names what is missing to make and run this format."""
    for package in (*FORMATS[format][1], RUNTIMES[format]):
        pytest.importorskip(package, reason=f"{package} is not installed (yolo9000[export])")


def load(path: Path) -> tuple[dict, Callable[..., dict[str, np.ndarray]]]:
    """The description in the file, and a function from input arrays to named output arrays."""
    return {".pt2": _load_pt2, ".onnx": _load_onnx, ".xml": _load_openvino}[path.suffix](path)


def _load_pt2(path: Path):
    import torch

    extra = {"yolo9000": ""}
    program = torch.export.load(path, extra_files=extra)
    about, module = json.loads(extra["yolo9000"]), program.module()

    def run(*arrays):
        with torch.inference_mode():
            outputs = module(*map(torch.from_numpy, arrays))
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        return dict(zip(about["outputs"], (output.numpy() for output in outputs), strict=True))

    return about, run


def _load_onnx(path: Path):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    about = json.loads(session.get_modelmeta().custom_metadata_map["yolo9000"])
    inputs, names = ([part.name for part in parts] for parts in (session.get_inputs(), session.get_outputs()))
    assert (inputs, names) == (list(about["inputs"]), list(about["outputs"]))

    def run(*arrays):
        return dict(zip(names, session.run(None, dict(zip(inputs, arrays, strict=True))), strict=True))

    return about, run


def _load_openvino(path: Path):
    import openvino

    model = openvino.Core().read_model(path)
    about = json.loads(model.get_rt_info("yolo9000").astype(str))
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = openvino.Core().compile_model(model, "CPU", settings)

    def run(*arrays):
        result = compiled(arrays)
        return {name: np.array(result[i]) for i, name in enumerate(about["outputs"])}

    assert [output.any_name for output in compiled.outputs] == list(about["outputs"])
    return about, run


def fit(detector: Detector, pictures: list[np.ndarray], size=None) -> tuple[np.ndarray, np.ndarray]:
    """The inputs of an exported file, made as the detector makes its own."""
    size = size or detector.size
    fitted = [letterbox(one, size, resize=detector.resize)[0].numpy() for one in pictures]
    return np.stack(fitted), np.array([[one.shape[1], one.shape[0]] for one in pictures])


def assert_same(
    outputs: dict[str, np.ndarray],
    expected: list[Detections],
    atol: float = 2e-5,
    passed: list[int] | None = None,
) -> None:
    """Outputs equal what the detector found on each picture of the batch, box by box; of boxes whose scores
    are equal but for rounding either may come first."""
    assert len(outputs["boxes_xyxy"]) == sum(map(len, expected))
    assert (np.diff(outputs["pictures"]) >= 0).all()
    for i, found in enumerate(expected):
        rows = outputs["pictures"] == i
        ours = {name: outputs[name][rows] for name in list(outputs)[:5]}
        assert ours["boxes_xyxy"].shape == (len(found), 4)
        assert np.allclose(ours["scores"], found.scores, rtol=0, atol=atol)  # before any order
        order = _in_order_of(ours, found, atol)
        ours = {name: values[order] for name, values in ours.items()}
        assert np.array_equal(ours["nodes"], found.nodes)
        pixels = atol * 5 * max(found.image_size)
        assert np.allclose(ours["boxes_xyxy"], found.boxes_xyxy, rtol=1e-4, atol=pixels)
        assert np.allclose(ours["scores"], found.scores, rtol=0, atol=atol)
        assert np.allclose(ours["objectness"], found.objectness, rtol=0, atol=atol)
        for row, path in zip(ours["path_probabilities"], found.path_probabilities, strict=True):
            assert np.allclose(row[: len(path)], path, rtol=0, atol=atol)
            assert (row[len(path) :] == 0).all()
    if passed is not None:
        assert outputs["passed"].tolist() == passed


def _in_order_of(ours: dict[str, np.ndarray], found: Detections, atol: float) -> np.ndarray:
    """Which of ours (M,) is each of those found: of equal scores, but for rounding, the one at its place."""
    order: list[int] = []
    for box, score in zip(found.boxes_xyxy, found.scores, strict=True):
        away = np.abs(ours["boxes_xyxy"] - box).max(axis=1)
        away[np.abs(ours["scores"] - score) > atol] = np.inf
        away[order] = np.inf
        order.append(int(away.argmin()))
    return np.array(order, int)


def passing(detector: Detector, pictures: list[np.ndarray], options: Options, size=None) -> list[int]:
    """How many boxes of each picture pass the threshold."""
    import torch

    images = torch.from_numpy(fit(detector, pictures, size)[0])
    found = detector.candidates(detector.run(images), options)
    return torch.bincount(found.image, minlength=len(pictures)).tolist()
