"""Darknet's forward pass once more, in numpy: a second witness that shares nothing with the package.

Reads cfg and weights itself. Only what the reference networks use: stride-1 convolutions, 2x2 pools, route,
reorg, average pool, softmax over all or over sibling groups.
"""

from pathlib import Path

import numpy as np


def forward(cfg: Path, weights: Path, image: np.ndarray, data_root: Path) -> dict[str, np.ndarray]:
    """image (3, H, W) -> the last output of each kind of section: "convolutional", "softmax", ..."""
    values = _Values(weights)
    outputs: list[np.ndarray] = []
    named: dict[str, np.ndarray] = {}
    x = image.astype(np.float64)
    for name, options in _sections(cfg)[1:]:
        if name in ("cost", "region"):
            break
        x = _layer(name, options, x, outputs, values, data_root)
        outputs.append(x)
        named[name] = x
    assert not len(values.left), "values left over"
    return named


def _sections(cfg: Path) -> list[tuple[str, dict[str, str]]]:
    sections: list[tuple[str, dict[str, str]]] = []
    for line in cfg.read_text().splitlines():
        line = line.replace(" ", "")
        if line.startswith("["):
            sections.append((line[1:-1], {}))
        elif line and line[0] != "#":
            sections[-1][1].setdefault(*line.split("="))
    return sections


class _Values:
    """The floats of a weight file, taken in order."""

    def __init__(self, weights: Path) -> None:
        data = weights.read_bytes()
        major, minor = np.frombuffer(data[:8], "<i4")
        self.left = np.frombuffer(data[20 if major * 10 + minor >= 2 else 16 :], "<f4").astype(np.float64)

    def take(self, count: int) -> np.ndarray:
        found, self.left = self.left[:count], self.left[count:]
        assert len(found) == count, "values missing"
        return found


def _layer(name, options, x, outputs, values, data_root) -> np.ndarray:
    if name == "convolutional":
        return _convolution(options, x, values)
    if name == "maxpool":
        stride = int(options["stride"])
        c, h, w = x.shape
        padded = np.full((c, h + 1, w + 1), -np.inf)
        padded[:, :h, :w] = x
        corners = [padded[:, dy : dy + h : stride, dx : dx + w : stride] for dy in (0, 1) for dx in (0, 1)]
        return np.maximum.reduce(corners)
    if name == "route":
        layers = [int(part) for part in options["layers"].split(",")]
        return np.concatenate([outputs[i] for i in layers])  # a negative index counts back in both
    if name == "reorg":
        c, h, w = x.shape
        k, j, i = np.meshgrid(*map(np.arange, x.shape), indexing="ij")
        deep, offset = c // 4, k // (c // 4)
        source = (2 * i + offset % 2) + 2 * w * ((2 * j + offset // 2) + 2 * h * (k % deep))
        return x.ravel()[source].reshape(4 * c, h // 2, w // 2)
    if name == "avgpool":
        return x.mean((1, 2))
    assert name == "softmax"
    return _softmax(x, data_root / options["tree"] if "tree" in options else None)


def _convolution(options, x, values) -> np.ndarray:
    filters, size = int(options["filters"]), int(options["size"])
    c, h, w = x.shape
    biases = values.take(filters)
    normalised = options.get("batch_normalize", "0") == "1"
    scales, mean, variance = (values.take(filters) for _ in range(3)) if normalised else (1, 0, 1)
    kernel = values.take(filters * c * size * size).reshape(filters, c, size, size)
    pad = size // 2
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
    y = sum(
        np.einsum("fc,chw->fhw", kernel[:, :, dy, dx], padded[:, dy : dy + h, dx : dx + w])
        for dy in range(size)
        for dx in range(size)
    )
    if normalised:
        y = (y.T - mean) / (np.sqrt(variance) + 1e-6) * scales
        y = y.T
    y = (y.T + biases).T
    return np.where(y > 0, y, 0.1 * y) if options.get("activation") == "leaky" else y


def _softmax(x, tree: Path | None) -> np.ndarray:
    parents = (
        [0] * len(x) if tree is None else [int(line.split()[1]) for line in tree.read_text().splitlines()]
    )
    out = np.empty_like(x)
    for parent in set(parents):
        group = [k for k, p in enumerate(parents) if p == parent]
        e = np.exp(x[group] - x[group].max())
        out[group] = e / e.sum()
    return out
