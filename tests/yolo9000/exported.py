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
        order = _tied_by_place(ours["scores"], ours["boxes_xyxy"])
        ours = {name: values[order] for name, values in ours.items()}
        found = found[_tied_by_place(found.scores, found.boxes_xyxy)]
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


def _tied_by_place(scores: np.ndarray, boxes_xyxy: np.ndarray) -> np.ndarray:
    """The order (M,) as it is, but that of neighbours with the same score, to a millionth, the one further to
    the left and above comes first."""
    tied = np.concatenate(([0], np.cumsum(np.abs(np.diff(scores)) > 1e-6)))[: len(scores)]
    left, top = boxes_xyxy[:, :2].round(1).T
    return np.lexsort((boxes_xyxy[:, 3], boxes_xyxy[:, 2], top, left, tied))


def passing(detector: Detector, pictures: list[np.ndarray], options: Options, size=None) -> list[int]:
    """How many boxes of each picture pass the threshold."""
    import torch

    images = torch.from_numpy(fit(detector, pictures, size)[0])
    found = detector.candidates(detector.run(images), options)
    return torch.bincount(found.image, minlength=len(pictures)).tolist()
