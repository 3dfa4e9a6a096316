"""Small networks with random weights for tests: every form of head, over a small tree or a flat list. And a
picture to run them on."""

import numpy as np
import torch
from PIL import Image

from wordtree import WordTree
from yolo9000.network import Network
from yolo9000.spec import Convolution, GlobalAveragePool, MaxPool, NetworkSpec, Region, Softmax

# animal (dog (husky, poodle), cat), vehicle (car (taxi), bicycle), thing
TREE = WordTree(
    ["n1", "n2", "n3", "n4", "n5", "n6", "n7", "n8", "n9", "n10"],
    [-1, -1, -1, 0, 0, 1, 1, 3, 3, 5],
    ["animal", "vehicle", "thing", "dog", "cat", "car", "bicycle", "husky", "poodle", "taxi"],
)
ANCHORS = ((1.5, 2.0), (3.0, 2.5))
FORMS = ("darknet", "rows", "shared", "stored", "flat")
STORED = (0, 1, 2, 3, 5, 7, 8)  # cat, bicycle and taxi have no row


def trunk() -> list:
    return [Convolution(8, 3), MaxPool(2, 2), Convolution(12, 3), MaxPool(2, 2), Convolution(16, 3, stride=2)]


def detector_spec(form: str, size: int = 64) -> NetworkSpec:
    """stride 8; the region layer in Darknet's form or with rows of its own."""
    classes = 6 if form == "flat" else len(TREE)
    layers = trunk()
    if form in ("darknet", "flat"):
        layers.append(
            Convolution(len(ANCHORS) * (5 + classes), 1, activation="linear", batch_normalize=False)
        )
        layers.append(Region(ANCHORS, classes))
    else:
        features = len(layers) - 1
        layers.append(Convolution(len(ANCHORS) * 5, 1, activation="linear", batch_normalize=False))
        stored = STORED if form == "stored" else None
        shared = form != "rows"
        layers.append(
            Region(ANCHORS, classes, boxes=features + 1, features=features, stored=stored, shared_rows=shared)
        )
    return NetworkSpec(size, size, tuple(layers))


def randomise(net: Network, seed: int) -> Network:
    """Weights and batch norm statistics of ordinary spread; confident enough that descents go down."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in net.state_dict().items():
            if not value.is_floating_point():
                continue
            drawn = torch.randn(value.shape, generator=generator)
            if name.endswith("running_var") or name.endswith("norm.weight"):
                drawn = 0.5 + drawn.abs()
            elif value.ndim > 1:
                drawn = drawn * (3.0 / value[0].numel()) ** 0.5
            value.copy_(drawn)
    return net.eval()


def small_detector(form: str = "darknet", seed: int = 0) -> Network:
    spec = detector_spec(form)
    return randomise(Network(spec, None if form == "flat" else TREE), seed)


def small_classifier(tree: bool = False, seed: int = 0) -> Network:
    classes = len(TREE) if tree else 6
    head = (
        Convolution(classes, 1, activation="linear", batch_normalize=False),
        GlobalAveragePool(),
        Softmax(),
    )
    return randomise(Network(NetworkSpec(64, 64, (*trunk(), *head)), TREE if tree else None), seed)


def constant_detector(raw: list[float], anchors=((2.0, 1.0),)) -> Network:
    """Answers the same raw values in every cell of stride 8, whatever the picture; one class list of the
    values left."""
    classes = len(raw) // len(anchors) - 5
    layer = Convolution(len(raw), 8, stride=8, padding=0, activation="linear", batch_normalize=False)
    net = Network(NetworkSpec(64, 64, (layer, Region(anchors, classes)))).eval()
    with torch.no_grad():
        net.layers[0].conv.weight.zero_()
        net.layers[0].conv.bias.copy_(torch.tensor(raw))
    return net


def picture(seed: int = 0, width: int = 90, height: int = 60) -> Image.Image:
    """Blots of colour, the same for the same seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 9, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
