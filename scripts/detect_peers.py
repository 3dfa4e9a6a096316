#!/usr/bin/env python3
"""Worker of bench_detect.py: one contender, from the bytes of a JPEG to named boxes with paths, in a process
of its own.

Reads requests, a line of JSON each, from standard input and answers with a line of JSON. What the peers do
around their network is what someone who has read the paper would write in a page: NumPy and OpenCV, the
softmax of sibling groups only where a box passed and only on the way down. No torch in a peer's process.
"""

import argparse
import json
import math
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

NMS_IOU = 0.4
# The last two: no more input than the picture needs; without programs of layers (yolo9000/program.py).
OWN = ("ours", "ours-float32", "ours-rect", "ours-packed")
PEERS = ("opencv", "onnxruntime", "openvino", "openvino-bf16")
Found = list[tuple[list[float], float, str, tuple[str, ...]]]  # box in pixels, score, name, path of ids


class Watch:
    """Seconds between calls, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def __call__(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0) + now - self._last
        self._last = now


class Peer:
    """The dense network under another runtime, and plain post-processing."""

    def __init__(self, name: str, folder: Path, threads: int) -> None:
        import cv2

        cv2.setNumThreads(threads)
        self.cv2 = cv2
        facts = json.loads((folder / "facts.json").read_text())
        self.size, self.threshold = facts["size"], facts["threshold"]
        self.names, self.ids = facts["names"], facts["ids"]
        tree = np.load(folder / "tree.npz")
        self.anchors, self.parents = tree["anchors"], tree["parents"]
        self.starts, self.child_group = tree["group_starts"].tolist(), tree["child_group"].tolist()
        self.network = _network(name, folder / "dense.onnx", threads)

    def detect(self, data: bytes, watch: Watch) -> Found:
        cv2 = self.cv2
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
        watch("decode")
        height, width = picture.shape[:2]
        scale = min(self.size / width, self.size / height)
        wide, high = int(width * scale), int(height * scale)
        left, top = (self.size - wide) // 2, (self.size - high) // 2
        canvas = np.full((self.size, self.size, 3), 128, np.uint8)
        # INTER_AREA would be the better resize, and on a large photograph a slower one.
        cv2.resize(picture, (wide, high), canvas[top : top + high, left : left + wide])
        image = cv2.dnn.blobFromImage(canvas, 1 / 255)
        watch("letterbox")
        output = self.network(image)
        watch("network")
        boxes_cxcywh, objectness, nodes, paths = self._survivors(output)
        watch("head")
        boxes = (boxes_cxcywh - [left, top, 0, 0]) / scale
        boxes[:, :2] -= boxes[:, 2:] / 2
        kept = ()
        if len(boxes):  # boxes are x, y, width, height here; of one class only
            kept = cv2.dnn.NMSBoxesBatched(boxes, objectness, nodes, self.threshold, NMS_IOU)
        watch("suppression")
        found = []
        for k in kept:
            x, y, w, h = boxes[k].tolist()
            path = tuple(self.ids[node] for node in paths[k])
            found.append(([x, y, x + w, y + h], float(objectness[k]), self.names[paths[k][-1]], path))
        watch("naming")
        return found

    def _survivors(self, output: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[list[int]]]:
        """Boxes (m, 4) in pixels of the network's input, objectness (m,), nodes (m,) and their paths, of
        those that pass the threshold."""
        count, grid = len(self.anchors), output.shape[-1]
        output = output.reshape(count, -1, grid, grid)  # (1, A*(5+C), H, W) -> (A, 5+C, H, W)
        limit = math.log(self.threshold / (1 - self.threshold))
        anchor, row, column = np.nonzero(output[:, 4] > limit)
        values = output[anchor, :, row, column]  # (m, 5+C)
        centre = (1 / (1 + np.exp(-values[:, :2])) + np.stack((column, row), 1)) * (self.size / grid)
        extent = np.exp(values[:, 2:4]) * self.anchors[anchor] * (self.size / grid)
        objectness = 1 / (1 + np.exp(-values[:, 4]))
        paths = [self._descend(logits) for logits in values[:, 5:]]
        nodes = np.array([path[-1] for path in paths], np.int32)
        return np.concatenate((centre, extent), 1), objectness, nodes, paths

    def _descend(self, logits: np.ndarray) -> list[int]:
        """The greedy walk down; each step's probability is computed, as whoever shows a path wants it."""
        path, probabilities, group = [], [], 0
        while group >= 0:
            start, end = self.starts[group], self.starts[group + 1]
            shares = np.exp(logits[start:end] - logits[start:end].max())
            best = int(shares.argmax())
            probabilities.append(shares[best] / shares.sum())
            path.append(start + best)
            group = self.child_group[path[-1]]
        return path


def _network(name: str, file: Path, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    """(1, 3, H, W) float32 -> (1, A*(5+C), H/32, W/32)."""
    if name == "opencv":
        import cv2

        net = cv2.dnn.readNetFromONNX(str(file))

        def run(image: np.ndarray) -> np.ndarray:
            net.setInput(image)
            return net.forward()

        return run
    if name == "onnxruntime":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        return lambda image: session.run(None, {"images": image})[0]
    import openvino

    settings = {
        "INFERENCE_PRECISION_HINT": "bf16" if name.endswith("bf16") else "f32",
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    core = openvino.Core()
    request = core.compile_model(core.read_model(file), "CPU", settings).create_infer_request()
    return lambda image: request.infer([image], share_inputs=True, share_outputs=True)[0]


class Ours:
    """This package's detector of the same network, read from a model file."""

    def __init__(self, folder: Path, precision: str, rect: bool, threads: int) -> None:
        import torch

        from yolo9000 import Detector
        from yolo9000.images import read_reduced

        self.read = read_reduced
        torch.set_num_threads(threads)
        self.torch = torch
        facts = json.loads((folder / "facts.json").read_text())
        self.detector = Detector.load(folder / "model.safetensors", precision=precision, rect=rect)
        self.given = {"threshold": facts["threshold"], "rule": "greedy", "nms": "class", "nms_iou": NMS_IOU}
        self.given["score"] = "objectness"
        self.options = self.detector.options(**self.given)

    def detect(self, data: bytes, watch: Watch) -> Found:
        detector, options = self.detector, self.options
        picture, image_size = self.read(data, detector.size)
        watch("decode")
        image, box = detector.letterboxed(picture, image_size)
        watch("letterbox")
        output = detector.run(image[None])
        watch("network")
        candidates = detector.candidates(output, options)
        watch("head")
        found = detector.detections(candidates.of(0), box, options)
        watch("suppression")  # and naming, in one step
        return list(zip(found.boxes_xyxy, found.scores, found.names, found.paths, strict=True))

    def whole(self, data: bytes) -> Any:
        """The one call that a user makes."""
        return self.detector.find(data, self.options)

    def stream(self, data: bytes, count: int) -> Any:
        """So many pictures by the call that a user makes for many."""
        return list(self.detector.stream([data] * count, **self.given))

    def body(self, size: int) -> Callable[[], Any]:
        """The network alone up to the features that class rows are applied to."""
        from yolo9000.letterbox import rect_size

        net, dtype = self.detector._running, self.detector._dtype
        # Pictures are 4 to 3 here.
        sides = rect_size((4, 3), (size, size), self.detector.stride) if self.detector.rect else (size, size)
        image = self.torch.rand(*sides[::-1], 3).to(dtype).permute(2, 0, 1)[None]  # laid out as a picture is
        layer = len(net.spec) - 3

        def run() -> Any:
            with self.torch.inference_mode():
                return net.features(image, layer)

        return run

    def matmul(self, side: int) -> Callable[[], Any]:
        """A product of two square matrices, both as the processor likes them best: rows against rows."""
        a, b = (self.torch.randn(side, side, dtype=self.detector._dtype) for _ in range(2))
        return lambda: self.torch.nn.functional.linear(a, b)


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def peak_memory() -> int:
    """Bytes: the most that this process ever held."""
    status = Path("/proc/self/status")
    if status.exists():  # unlike ru_maxrss it starts anew with the program
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def answer(contender: Any, request: dict[str, Any], pictures: dict[str, bytes]) -> dict[str, Any]:
    """What one request asks for, `runs` times after one that is not counted."""
    runs = request["runs"]
    match request["what"]:
        case "memory":
            return {"peak": peak_memory()}
        case "detect":
            data, stages, found = pictures[request["picture"]], [], []
            for _ in range(runs + 1):
                watch, worked = Watch(), time.process_time()
                found = contender.detect(data, watch)
                stages.append({**watch.seconds, "cpu": time.process_time() - worked})
            return {"stages": stages[1:], "names": [name for _, _, name, _ in found]}
        case "whole":
            data = pictures[request["picture"]]
            return {"seconds": [seconds(lambda: contender.whole(data)) for _ in range(runs + 1)][1:]}
        case "stream":
            data, count = pictures[request["picture"]], request["count"]
            return {"seconds": [seconds(lambda: contender.stream(data, count)) / count for _ in range(runs)]}
        case "body" | "matmul" as what:
            work = getattr(contender, what)(request["size"])
            return {"seconds": [seconds(work) for _ in range(runs + 1)][1:]}
    raise ValueError(f"unknown request {request['what']!r}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], epilog="Started by bench_detect.py."
    )
    parser.add_argument("name", choices=(*PEERS, *OWN))
    parser.add_argument("folder", type=Path, help="what bench_detect.py prepared")
    parser.add_argument("threads", type=int)
    given = parser.parse_args()
    if given.name.startswith("ours"):
        if given.name.endswith("packed"):  # layers as they are before they have programs
            from yolo9000 import program

            program._AFTER = math.inf
        precision = "float32" if given.name.endswith("float32") else "auto"
        contender: Any = Ours(given.folder, precision, given.name.endswith("rect"), given.threads)
    else:
        contender = Peer(given.name, given.folder, given.threads)
    pictures = {path.stem: path.read_bytes() for path in given.folder.glob("*.jpg")}
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(contender, json.loads(line), pictures)), flush=True)


if __name__ == "__main__":
    main()
