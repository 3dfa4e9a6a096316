"""The published networks, and this project's own small one, as `NetworkSpec`s: no weights, no modules.

Each equals the reference cfg file of its name, layer by layer, but for the file names that a cfg carries.
Make a network from one with `Network(spec, tree)`. `bn` is by default the rule of PyTorch and of Darknet on a
GPU; for published weight files, as loaded by `darknet.load`, see docs/darknet.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from yolo9000.errors import ModelError
from yolo9000.layers import twin_of
from yolo9000.spec import (
    Add,
    AveragePool,
    Convolution,
    External,
    GlobalAveragePool,
    Layer,
    LogSumExp,
    MaxPool,
    NetworkSpec,
    Region,
    Reorg,
    Route,
    Softmax,
)

if TYPE_CHECKING:
    from wordtree import WordTree

Anchors = Sequence[tuple[float, float]]

# (width, height) in cells of stride 32, from Darknet's cfg files.
YOLO9000_ANCHORS = ((0.77871, 1.14074), (3.00525, 4.31277), (9.22725, 9.61974))
VOC_ANCHORS = (
    (1.3221, 1.73145),
    (3.19275, 4.00944),
    (5.05587, 8.09892),
    (9.47112, 4.84053),
    (11.2364, 10.0071),
)
COCO_ANCHORS = (
    (0.57273, 0.677385),
    (1.87446, 2.06253),
    (3.33843, 5.47434),
    (7.88282, 3.52778),
    (9.77052, 9.16828),
)
TINY_VOC_ANCHORS = ((1.08, 1.19), (3.42, 4.41), (6.63, 11.38), (9.42, 5.11), (16.62, 10.52))


def darknet19(
    classes: int = 1000, image_size: int = 256, *, bn: str = "darknet-gpu", slim: float = 1
) -> NetworkSpec:
    """Darknet-19, the classifier (paper, table 6).

    slim: factor on the filters of every layer but the last, for narrow copies.
    """
    head = (
        Convolution(classes, 1, activation="linear", batch_normalize=False),
        GlobalAveragePool(),
        Softmax(),
    )
    return NetworkSpec(image_size, image_size, (*_darknet19_trunk(slim), *head), bn=bn)


def darknet9000(
    tree: WordTree, image_size: int = 448, bn: str = "darknet-gpu", slim: float = 1
) -> NetworkSpec:
    """Darknet-19 over the nodes of a tree, the classifier that YOLO9000's reference detector started from."""
    return darknet19(len(tree), image_size, bn=bn, slim=slim)


def tiny_darknet(classes: int = 1000, image_size: int = 224, bn: str = "darknet-gpu") -> NetworkSpec:
    """Tiny Darknet, a classifier of 4 MB. Its first 19 layers are the trunk of `tiny9000`."""
    head = (
        Convolution(classes, 1, activation="linear", batch_normalize=False),
        GlobalAveragePool(),
        Softmax(),
    )
    return NetworkSpec(image_size, image_size, (*_tiny_darknet_trunk(), *head), bn=bn)


def yolov2(
    num_classes: int = 80,
    anchors: Anchors = COCO_ANCHORS,
    backbone: NetworkSpec | Sequence[External] | None = None,
    route_layer: int | None = None,
    *,
    image_size: int = 416,
    use_passthrough: bool = True,
    reorg: str = "darknet",
    bn: str = "darknet-gpu",
    slim: float = 1,
) -> NetworkSpec:
    """YOLOv2 (paper, section 2): backbone, two 3x3 convolutions, pass-through, 3x3, 1x1 to anchors * (5 +
    classes).

    backbone: None for Darknet-19; a description, whose layers from a global average pool and the convolution
    before it on are left out; or `External` layers for a module of one's own, (the pass-through's,) the last.
    route_layer: the layer whose output is passed through; its grid is twice as fine as the backbone's. By
    default the last one such. reorg: order of the pass-through's channels, "darknet" for Darknet's weights,
    "space_to_depth" for those of others. Raises ModelError where backbone and route layer do not fit.
    """
    if backbone is None:
        backbone = NetworkSpec(image_size, image_size, _darknet19_trunk(slim))
    if not isinstance(backbone, NetworkSpec):
        backbone = NetworkSpec(image_size, image_size, tuple(backbone))
    trunk = _without_head(backbone)
    wide, narrow = _scaled(1024, slim), 4 * _scaled(16, slim)  # the reorg divides its channels by 4
    layers: list[Layer] = [*trunk.layers, Convolution(wide, 3), Convolution(wide, 3)]
    if use_passthrough:
        fine = trunk.outputs[-1].stride / 2
        if route_layer is None:
            route_layer = trunk.last_of_stride(fine)
        if route_layer is None:
            raise ModelError(
                f"no layer of the backbone has stride {fine:g} for the pass-through; use_passthrough=False"
            )
        if not 0 <= route_layer < len(trunk):
            raise ModelError(
                f"route_layer must be one of the backbone's layers, 0 to {len(trunk) - 1}, not {route_layer}"
            )
        if trunk.outputs[route_layer].stride != fine:
            found = trunk.outputs[route_layer].stride
            raise ModelError(f"route_layer {route_layer} has stride {found}; the pass-through wants {fine:g}")
        deep = len(layers) - 1
        layers += [Route((route_layer,)), Convolution(narrow, 1), Reorg(2, reorg), Route((deep + 3, deep))]
    layers += [Convolution(wide, 3), *_region(anchors, num_classes, jitter=0.3)]
    return NetworkSpec(image_size, image_size, tuple(layers), trunk.channels, bn)


def tiny_yolov2(
    num_classes: int = 20,
    anchors: Anchors = TINY_VOC_ANCHORS,
    image_size: int = 416,
    *,
    last: int = 1024,
    bn: str = "darknet-gpu",
    slim: float = 1,
) -> NetworkSpec:
    """Tiny YOLOv2 as trained on VOC; `last`: filters of the last 3x3 convolution (512 in COCO's)."""
    layers: list[Layer] = []
    for filters in (16, 32, 64, 128, 256):
        layers += [Convolution(_scaled(filters, slim), 3), MaxPool(2, 2)]
    layers += [Convolution(_scaled(512, slim), 3), MaxPool(2, 1)]
    layers += [Convolution(_scaled(1024, slim), 3), Convolution(_scaled(last, slim), 3)]
    layers += _region(anchors, num_classes)
    return NetworkSpec(image_size, image_size, tuple(layers), bn=bn)


def yolo9000(
    tree: WordTree | None = None,
    anchors: Anchors = YOLO9000_ANCHORS,
    classes: int | None = None,
    *,
    image_size: int = 544,
    bn: str = "darknet-gpu",
    slim: float = 1,
) -> NetworkSpec:
    """YOLO9000 (paper, section 4): Darknet-19's trunk and one 1x1 convolution; one class a node."""
    if classes is None:
        if tree is None:
            raise ModelError("yolo9000 needs a tree, or the number of its nodes as classes")
        classes = len(tree)
    layers = (*_darknet19_trunk(slim), *_region(anchors, classes))
    return NetworkSpec(image_size, image_size, layers, bn=bn)


def tiny9000(
    tree: WordTree | None = None,
    anchors: Anchors = ((2, 2), (4, 4), (7, 7), (10, 10), (14, 14)),
    classes: int | None = None,
    *,
    stored: Sequence[int] | None = None,
    shared_rows: bool = True,
    neck: int = 128,
    branch: int = 128,
    twin: int = 0,
    dilations: Sequence[int] = (1, 2, 1, 4, 1, 2, 1, 4),
    known: Sequence[int] = (),
    pool: int = 7,
    image_size: int = 224,
    bn: str = "darknet-cpu",
) -> NetworkSpec:
    """This project's small detector: Tiny Darknet's trunk, a neck for boxes, classes from averaged features.

    The trunk's last two layers (stride 16) and, by a pass-through, its last of stride 8 go through a 1x1
    and one 3x3 convolution for each of `dilations`, joined in pairs by addition, to class-blind boxes. Class
    features are the trunk's, averaged over `pool` x `pool` cells (a single cell's are far too sharp), plus a
    learnt difference that starts at zero, from a branch of `branch` channels. known: for each class of the
    trunk's own classifier its node in `tree`; then the features get, for every inner node with known classes
    below it, the log of the sum of their exponentials, so that the tree can begin as exactly what the
    classifier knows (yolo9000.distill).
    twin: the first of the trunk's layers that are there twice, 0 for none: the trunk stays what the
    classifier learnt, its twin begins as a copy, learns, and feeds neck and branch; class rows then see the
    branch's own channels too.
    anchors: in cells of 16 pixels. stored: nodes with a class row (None: all); shared_rows: one set of rows
    for all anchors. bn: "darknet-cpu", that of the trunk's weights.
    """
    if classes is None:
        if tree is None:
            raise ModelError("tiny9000 needs a tree, or the number of its nodes as classes")
        classes = len(tree)
    layers: list[Layer] = [*_tiny_darknet_trunk()]
    trunk, wide, fine = 18, 17, 12  # 128 channels; 512 at the same stride 16; 256 at stride 8, passed through
    source = trunk
    if twin:
        if not 0 < twin <= wide:
            raise ModelError(f"twin must be one of the trunk's layers, 1 to {wide}, or 0, not {twin}")
        layers.append(Route((twin - 1,)))
        shift = len(layers) - twin
        layers += [twin_of(i, layers[i]) for i in range(twin, trunk + 1)]
        source, wide, fine = trunk + shift, wide + shift, fine + shift if fine >= twin else fine
    layers += [Route((fine,)), Convolution(neck // 2, 1), Reorg(2, "space_to_depth")]
    layers += [Route((len(layers) - 1, wide, source)), Convolution(neck, 1)]
    join = len(layers) - 1
    for i, dilation in enumerate(dilations):
        layers.append(Convolution(neck, 3, dilation=dilation))
        if i % 2:
            layers.append(Add(join))
            join = len(layers) - 1
    boxes = Convolution(5 * len(anchors), 1, activation="linear", batch_normalize=False, start="boxes")
    layers.append(boxes)
    boxes = len(layers) - 1
    layers += [Route((trunk,)), AveragePool(pool, padded=True)]
    averaged = len(layers) - 1
    # A branch of its own: gradients of thousands of class rows would drown those of the boxes in the neck.
    layers += [Route((wide,)), Convolution(branch, 1), Convolution(branch, 3)]
    layers.append(Convolution(128, 1, activation="linear", batch_normalize=False, start="zero"))
    layers.append(Add(averaged))
    features = len(layers) - 1
    if twin:
        layers.append(Route((features, features - 2)))
        features = len(layers) - 1
    if known:
        if tree is None:
            raise ModelError("tiny9000 needs the tree to place what is known")
        from yolo9000.distill import known_below  # needs torch, as no other description does

        sets = tuple(tuple(below) for below in known_below(tree, known, stored).values())
        if sets:  # a flat list has no inner nodes
            layers += [LogSumExp(len(known), sets), Route((features, len(layers)))]
            features = len(layers) - 1
    nodes = None if stored is None else tuple(int(node) for node in stored)
    layers.append(
        Region(tuple(anchors), classes, boxes=boxes, features=features, stored=nodes, shared_rows=shared_rows)
    )
    return NetworkSpec(image_size, image_size, tuple(layers), bn=bn)


def _scaled(filters: int, slim: float) -> int:
    if not 0 < slim < math.inf:
        raise ModelError(f"slim is a factor on the numbers of filters, above 0; it is {slim}")
    return max(1, round(filters * slim))


def _darknet19_trunk(slim: float = 1) -> tuple[Layer, ...]:
    """What comes before Darknet-19's last convolution: 23 layers, stride 32, 1024 channels."""
    layers: list[Layer] = []
    for block in ((32,), (64,), (128, 64, 128), (256, 128, 256), (512, 256, 512, 256, 512)):
        layers += [Convolution(_scaled(n, slim), 1 if i % 2 else 3) for i, n in enumerate(block)]
        layers.append(MaxPool(2, 2))
    layers += [
        Convolution(_scaled(n, slim), 1 if i % 2 else 3) for i, n in enumerate((1024, 512, 1024, 512, 1024))
    ]
    return tuple(layers)


def _tiny_darknet_trunk() -> tuple[Layer, ...]:
    """Tiny Darknet up to its last convolution: 19 layers, stride 16, 128 channels."""
    layers: list[Layer] = [Convolution(16, 3), MaxPool(2, 2), Convolution(32, 3), MaxPool(2, 2)]
    for squeeze, wide in ((16, 128), (32, 256), (64, 512)):
        layers += [
            Convolution(squeeze, 1),
            Convolution(wide, 3),
            Convolution(squeeze, 1),
            Convolution(wide, 3),
        ]
        layers.append(MaxPool(2, 2))
    layers[-1] = Convolution(128, 1)
    return tuple(layers)


def _region(anchors: Anchors, classes: int, **settings) -> list[Layer]:
    """The last two layers of a Darknet detector."""
    region = Region(tuple(anchors), classes, **settings)
    filters = len(region.anchors) * (5 + classes)
    return [Convolution(filters, 1, activation="linear", batch_normalize=False), region]


def _without_head(spec: NetworkSpec) -> NetworkSpec:
    """A classifier's layers before its last convolution; any other network as it is."""
    for i, layer in enumerate(spec):
        if isinstance(layer, GlobalAveragePool):
            return spec.trunk(i - 1 if isinstance(spec.layers[i - 1], Convolution) else i)
    if spec.region is not None:
        raise ModelError("a backbone is a trunk or a classifier, not a detector")
    return spec
