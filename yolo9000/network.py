"""`Network`: the modules that a `NetworkSpec` describes, and running them. No files, no boxes, no loss."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yolo9000.blocks import ClassRows, ConvolutionUnit, LogSumExpUnit, RegionRows, activate, max_pool, reorg
from yolo9000.errors import ModelError
from yolo9000.head import LazyOutput
from yolo9000.plan import Plans, check_fit
from yolo9000.roi import roi_average
from yolo9000.rowbank import RowBank
from yolo9000.spec import (
    IMAGE,
    Add,
    AveragePool,
    Convolution,
    Dropout,
    External,
    Gate,
    GlobalAveragePool,
    Layer,
    LogSumExp,
    MaxPool,
    NetworkSpec,
    Region,
    Reorg,
    RoiAverage,
    Route,
)

if TYPE_CHECKING:
    from wordtree import WordTree
    from yolo9000.hierarchy import Hierarchy


class Network(nn.Module):
    """Runs a `NetworkSpec`.

    Args: spec; tree: the `WordTree` that the classes are nodes of, if any (its size must be the number of
    classes); external: the module behind `External` layers; init: False leaves weights unset, for a caller
    that loads them. Attributes: spec, tree, class_map ((n,) int64 data set class -> node, or None), anchors
    ((A, 2) in cells; (0, 2) for a classifier), classes, stride (pixels a cell), seen (images trained on, as
    in a weight file), version (its header); and what a model file keeps beside the weights, names (of a flat
    list of classes, or None), record and defaults (modelfile.py). New weights are Darknet's: normal with
    standard deviation sqrt(2 / fan in), biases zero. Raises ModelError.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        tree: WordTree | None = None,
        *,
        external: nn.Module | None = None,
        init: bool = True,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.layers = nn.ModuleList(_module(spec, i, init) for i in range(len(spec)))
        needs = any(isinstance(layer, External) for layer in spec)
        if needs != (external is not None):
            raise ModelError("an external backbone is given exactly if the network has `External` layers")
        self.external = external
        stored = spec.region.stored if spec.region else None
        self.register_buffer("stored", None if stored is None else torch.tensor(stored), persistent=False)
        self.classes = spec.classes
        self.stride = spec.stride
        self.class_map: Tensor | None = None
        self.seen = 0
        self.version = (0, 2, 0)
        self.names: tuple[str, ...] | None = None
        self.record: dict[str, Any] = {}
        self.defaults: dict[str, Any] = {}
        self.frozen = 0
        # Layers that are one call of a module with one input, by number: packed.py's.
        self.packed: dict[int, nn.Module] = {}
        self._plans = Plans(spec)
        self._fits: set[tuple[Any, ...]] = set()  # outputs wanted and sizes of images whose grids fit
        self._hierarchy: Hierarchy | None = None
        self._tree: WordTree | None = None
        self.tree = tree

    @property
    def anchors(self) -> Tensor:
        """(A, 2) width and height in cells, float32 whatever the network computes in; (0, 2) without any."""
        first = next(self.parameters(), None)
        anchors = self.spec.region.anchors if self.spec.region else ()
        device = None if first is None else first.device
        return torch.tensor(anchors, dtype=torch.float32, device=device).reshape(-1, 2)

    @property
    def own_size(self) -> tuple[int, int]:
        """(width, height) in pixels of the input that it runs at where nobody says another."""
        size = self.defaults.get("size") or (self.spec.width, self.spec.height)
        return tuple(size) if isinstance(size, tuple | list) else (size, size)

    @property
    def tree(self) -> WordTree | None:
        return self._tree

    @tree.setter
    def tree(self, tree: WordTree | None) -> None:
        if tree is not None and len(tree) != self.classes:
            raise ModelError(f"the tree has {len(tree)} nodes, the network {self.classes} classes")
        self._tree, self._hierarchy = tree, None

    def forward(self, images: Tensor, lazy: bool = False) -> Tensor | LazyOutput:
        """images (N, 3, H, W), RGB in 0..1, H and W multiples of `stride`.

        A detector gives what enters its region layer, raw: (N, A*(5+C), H/stride, W/stride), [anchor][x, y,
        w, h, objectness, classes...]; or, `lazy`, a `LazyOutput`. A classifier gives probabilities (N, C):
        with a tree, each given its parent. A bare trunk gives its last layer's output. Raises ModelError for
        images of another shape.
        """
        if lazy:
            return self._lazy(images)
        region = self.spec.region
        if region is not None and region.features is not None:
            return self._lazy(images).dense()
        if region is not None:
            return self.features(images, len(self.spec) - 2)
        if self.spec.softmax is not None:
            return self._probabilities(self.logits(images))
        return self.features(images, len(self.spec) - 1)

    def lazy(self, images: Tensor) -> LazyOutput:
        """A detector's `forward` without the class channels. Its last convolution must be linear and 1x1, as
        Darknet's are, or the region layer hold class rows."""
        return self(images, lazy=True)

    def logits(self, images: Tensor) -> Tensor:
        """What a classifier's softmax is of, divided by its temperature: images (N, 3, H, W) -> (N, C)."""
        if self.spec.softmax is None:
            raise ModelError("logits are a classifier's; this network does not end in a softmax")
        if len(self.spec) == 1:  # -1 would be the softmax itself
            raise ModelError("a softmax alone is no network; put the layers before it")
        logits = self.features(images, len(self.spec) - 2).flatten(1)
        if logits.shape[1] != self.classes:
            raise ModelError(
                f"the softmax has {logits.shape[1]} values for {self.classes} classes: it stands over a grid "
                "of several cells; put a global average pool before it"
            )
        return logits / self.spec.softmax.temperature

    def features(self, images: Tensor, layer: int) -> Tensor:
        """The output of layer `layer` (negative: from the end), (N, C, H, W) or (N, C); later ones rest."""
        count = len(self.spec)
        if not -count <= layer < count:
            raise ModelError(f"there is no layer {layer} among {count}")
        index = layer % count
        if index == count - 1 and (self.spec.region or self.spec.softmax):
            return self.forward(images)
        return self.outputs(images, (index,))[index]

    def fuse(self, layers: int | None = None, share_rows: bool = False) -> Network:
        """A copy in evaluation mode with batch norm folded into the convolutions before it; outputs agree to
        rounding. layers: fold only in the first so many layers, as for a trunk that stays frozen. share_rows:
        the class rows that a region layer owns are no copy but this network's.
        """
        end = len(self.spec) if layers is None else self._first(layers, "fold")
        folded = [
            replace(s, batch_normalize=False) if isinstance(s, Convolution) and i < end else s
            for i, s in enumerate(self.spec)
        ]
        copy = Network(
            replace(self.spec, layers=tuple(folded)), self.tree, external=self.external, init=False
        )
        with torch.no_grad():
            for i, (ours, theirs) in enumerate(zip(self.layers, copy.layers, strict=True)):
                if i < end and isinstance(ours, ConvolutionUnit) and ours.norm is not None:
                    theirs.conv.weight, theirs.conv.bias = map(nn.Parameter, ours.folded())
                else:
                    state = ours.state_dict()
                    if not (share_rows and isinstance(ours, RegionRows)):
                        state = {key: value.clone() for key, value in state.items()}
                    theirs.load_state_dict(state, assign=True)
        return copy.carry(self).eval()

    def carry(self, net: Network) -> Network:
        """Takes over what another network has beside spec, tree and weights. Returns self."""
        for name in ("class_map", "stored", "seen", "version", "names", "record", "defaults"):
            setattr(self, name, getattr(net, name))
        return self

    def freeze(self, layers: int) -> Network:
        """Stops the first `layers` layers from learning, batch norm's statistics included. Returns self."""
        self.frozen = self._first(layers, "freeze")
        for i, layer in enumerate(self.layers):
            layer.requires_grad_(i >= layers)
        return self.train(self.training)

    def train(self, mode: bool = True) -> Network:
        """As `nn.Module.train`, but frozen layers stay in evaluation mode."""
        super().train(mode)
        for layer in self.layers[: self.frozen]:
            layer.eval()
        return self

    def _first(self, layers: int, what: str) -> int:
        if not 0 <= layers <= len(self.spec):
            raise ModelError(f"cannot {what} {layers} of {len(self.spec)} layers")
        return layers

    def _probabilities(self, logits: Tensor) -> Tensor:
        """(N, C) logits -> probabilities over all classes, equal groups or sibling groups."""
        softmax = self.spec.softmax
        if self.tree is None:
            if softmax.tree is not None:
                raise ModelError(f"this classifier needs its tree ({softmax.tree}); set `network.tree`")
            groups = logits.unflatten(1, (softmax.groups, -1))  # (N, C) -> (N, groups, C/groups)
            return groups.softmax(-1).flatten(1)
        if self._hierarchy is None:
            from yolo9000.hierarchy import Hierarchy  # detectors never need it here

            self._hierarchy = Hierarchy(self.tree)
        return self._hierarchy.to(logits.device).log_conditionals(logits).exp()

    def _lazy(self, images: Tensor) -> LazyOutput:
        region = self.spec.region
        if region is None:
            raise ModelError("only a detector has a lazy output; this network does not end in a region layer")
        count = len(region.anchors)
        if region.features is not None:
            layer = self.feature_layer
            rows = self.layers[-1].rows
            bank = _bank(rows.weight, rows.bias, 2)
            found = self.outputs(images, (region.boxes, layer))
            check_fit(len(self.spec) - 1, region, [found[region.boxes], found[layer]])
            return replace(self.lazy_from(found[region.boxes], found[layer]), bank=bank)
        last = len(self.spec) - 2
        conv = self.spec.layers[last]
        wanted = {"size": 1, "stride": 1, "padding": 0, "groups": 1, "activation": "linear"}
        wanted["batch_normalize"] = False
        if any(getattr(conv, name, None) != value for name, value in wanted.items()):
            raise ModelError(
                "a lazy output needs a linear 1x1 convolution without batch norm before the region layer"
            )
        source = self.spec.inputs(last)[0]
        weight, bias = self.layers[last].conv.weight, self.layers[last].conv.bias
        bank = _bank(weight, bias, 1)
        weight = weight[:, :, 0, 0].unflatten(0, (count, -1))  # (A*(5+C), D, 1, 1) -> (A, 5+C, D)
        bias = bias.unflatten(0, (count, -1))  # (A*(5+C),) -> (A, 5+C)
        if bank is None:
            kernel, offset = weight[:, :5].flatten(0, 1), bias[:, :5].flatten()  # (A, 5, D) -> (A*5, D)
        else:
            rows = torch.arange(len(bias.flatten()), device=bias.device).view(count, -1)  # (A, 5+C)
            kernel, offset = bank.take(rows[:, :5].flatten())
        features = self.outputs(images, (source,))[source]
        boxes = F.conv2d(features, kernel[:, :, None, None], offset)
        return LazyOutput(boxes, features, weight[:, 5:], bias[:, 5:], None, self.classes, count, bank=bank)

    def lazy_from(self, boxes: Tensor, features: Tensor) -> LazyOutput:
        """A `LazyOutput` of this network's own class rows, from its boxes layer and its `feature_layer`."""
        region = self.spec.region
        if region is None or region.features is None:
            raise ModelError("only a region layer that owns class rows makes a lazy output by itself")
        rows = self.layers[-1].rows
        count = len(region.anchors)
        expand = None if self.feature_layer == region.features else self._expand
        return LazyOutput(boxes, features, rows.weight, rows.bias, self.stored, self.classes, count, expand)

    @property
    def feature_layer(self) -> int:
        """The layer whose output `lazy` gives as features: the region's, or, where that only joins a layer
        to its own log-sum-exp, that layer; the sums are then computed cell by cell where they are asked for.
        """
        last = self.spec.region.features
        match self.spec.layers[last]:
            case Route(layers=(source, sums)) if isinstance(self.spec.layers[sums], LogSumExp):
                if self.spec.inputs(sums) == (source,):
                    return source
        return last

    def _expand(self, features: Tensor) -> Tensor:
        """(..., D0) of `feature_layer` -> (..., D) of the region's features."""
        sums = self.layers[self.spec.layers[self.spec.region.features].layers[1]]
        features = features.to(sums.weight.dtype)
        return torch.cat((features, sums.at(features)), -1)

    def outputs(self, images: Tensor, wanted: tuple[int, ...]) -> dict[int, Tensor]:
        """Outputs of the layers `wanted`, by layer; runs what they depend on (plan.py), drops each output
        after its last use.
        """
        self._check(images)
        outputs = {IMAGE: images}
        plan, resting = self._plans(wanted), frozenset()
        external = plan.external and self.external(images)
        traced = torch.compiler.is_compiling() or torch.jit.is_tracing()  # sizes may be open then
        size = None if traced else (wanted, *images.shape[2:])
        fits = size in self._fits
        direct = self.packed if fits else {}
        for i, sources, done in plan.steps:
            if i in resting:
                continue
            if i in direct:
                outputs[i] = direct[i](outputs[sources[0]])
            elif isinstance(self.spec.layers[i], External):
                outputs[i] = self._from_external(external, i, images)
            else:
                inputs = [outputs[j] for j in sources]
                if not fits:
                    check_fit(i, self.spec.layers[i], inputs)
                outputs[i] = self._step(i, inputs)
            second = plan.seconds.get(i)
            if second and (said := second.settled(i, outputs, self.layers, self._step)):
                resting |= second.layers
                outputs |= said
            for j in done:
                del outputs[j]
        if size is not None:
            self._fits.add(size)
        return {i: outputs[i] for i in wanted}

    def _step(self, index: int, inputs: list[Tensor]) -> Tensor:
        """The output of one layer, for inputs that `check_fit` lets pass."""
        layer, x = self.spec.layers[index], inputs[0]
        match layer:
            case MaxPool() if isinstance(self.layers[index], nn.Identity):  # else packed.py has been here
                return max_pool(x, layer)
            case AveragePool():  # of a padded one only real cells count
                padding = layer.size // 2 if layer.padded else 0
                return F.avg_pool2d(x, layer.size, layer.stride, padding, count_include_pad=False)
            case RoiAverage():
                anchors = torch.tensor(self.spec.region.anchors, device=x.device)
                return roi_average(x, inputs[1], anchors, layer.least)
            case GlobalAveragePool():
                return x.mean((2, 3))
            case Route():
                return torch.cat(inputs, 1) if len(inputs) > 1 else x
            case Add():
                return activate(x + inputs[1], layer.activation)
            case Gate():
                share = F.hardsigmoid(inputs[2]).view(-1, 1, *(inputs[2].shape[2:] or (1, 1)))  # (N, 1, ...)
                return torch.cat(((1 - share) * inputs[1], share * x), 1)
            case Reorg():
                return reorg(x, layer.stride, layer.order)
            case _:
                return self.layers[index](x)  # convolution, dropout, log_sum_exp; packed pools

    def _from_external(self, outputs: Tensor | list[Tensor], index: int, images: Tensor) -> Tensor:
        """One output of the user's backbone, held to what its layer says."""
        layer = self.spec.layers[index]
        outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
        if layer.output >= len(outputs):
            found = f"{len(outputs)} outputs; layer {index} wants number {layer.output}"
            raise ModelError(f"the external backbone gave {found}")
        x = outputs[layer.output]
        wanted = (len(images), layer.channels, *(side // layer.stride for side in images.shape[2:]))
        if tuple(x.shape) != wanted:
            raise ModelError(
                f"the external backbone's output {layer.output} is {tuple(x.shape)}, not {wanted}"
            )
        return x

    def _check(self, images: Tensor) -> None:
        """ModelError unless these images can be run."""
        if images.dim() != 4 or images.shape[1] != self.spec.channels:
            raise ModelError(f"images must be (N, {self.spec.channels}, H, W), not {tuple(images.shape)}")
        if not images.is_floating_point():
            raise ModelError(
                f"images must be floating point in 0..1, not {images.dtype}; divide 0..255 by 255"
            )
        height, width = images.shape[2:]
        if self.spec.region is not None and (
            height % self.stride or width % self.stride or not height or not width
        ):
            raise ModelError(f"image sides must be multiples of {self.stride}, not {width} x {height}")


def _bank(weight: Tensor, bias: Tensor, dims: int) -> RowBank | None:
    """The rows of what learns, numbered by the first `dims` dimensions; None where nothing learns."""
    if not (torch.is_grad_enabled() and weight.requires_grad):
        return None
    return RowBank(weight.flatten(0, dims - 1), bias.flatten())  # (A or 1, K, D) -> (A*K, D)


def _module(spec: NetworkSpec, index: int, init: bool) -> nn.Module:
    """The module of one layer; those without parameters are computed in `Network._step`."""
    layer: Layer = spec.layers[index]
    match layer:
        case Convolution():
            return ConvolutionUnit(layer, spec.channels_into(index), spec.bn, init)
        case LogSumExp():
            return LogSumExpUnit(layer, spec.channels_into(index), init)
        case Dropout():
            return nn.Dropout(layer.probability)
        case Region() if layer.features is not None:
            channels = spec.outputs[layer.features].channels
            sets = 1 if layer.shared_rows else len(layer.anchors)
            return RegionRows(ClassRows(sets, layer.rows, channels, init))
        case _:
            return nn.Identity()
