"""`Detector`: photographs in, `Detections` out. It composes what other files hold: reading (images.py),
letterboxing (letterbox.py), the network (network.py), answers at its boxes (candidates.py, decision.py),
suppression (suppression.py).

Class logits are computed only for boxes whose objectness passes the threshold, and on the way down the tree
only for the children of the node reached. That is exact: a score never exceeds its objectness."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, overload

import numpy as np
import torch
from torch import Tensor

from yolo9000.blocks import LogSumExpUnit, RegionRows
from yolo9000.candidates import Candidates, candidates
from yolo9000.cuts import warn_of_rowless
from yolo9000.decision import Decision
from yolo9000.detections import SOMETHING, Detections
from yolo9000.device import find_device, has_bfloat16
from yolo9000.errors import NO_NUMBER, ImageError, ModelError
from yolo9000.fitted import Fitted, alike
from yolo9000.habits import spoken, translated
from yolo9000.head import LazyOutput
from yolo9000.hierarchy import Hierarchy
from yolo9000.hub import Pretrained
from yolo9000.images import alone_or_all, read_image, read_reduced
from yolo9000.letterbox import RESIZES, Letterbox, letterbox
from yolo9000.names import tree_of
from yolo9000.options import Options, check_defaults, merged
from yolo9000.packed import fuse, pack
from yolo9000.pipeline import results
from yolo9000.suppression import nms

if TYPE_CHECKING:
    from wordtree import WordTree
    from yolo9000.keywords import Keywords, Picture, Pictures
    from yolo9000.network import Network

PRECISIONS = ("auto", "float32", "bfloat16")

# Inputs beyond this are no photographs letterboxed but a slip of the keyboard: 4096 x 4096 takes gigabytes.
_LARGEST_SIDE = 4096


class Detector(Pretrained):
    """Finds objects on photographs with any network that ends in a region layer, over a tree or a flat list
    of classes.

    Attributes: net (as given), tree (a WordTree; one group of roots for a flat list), class_map (data set
    class -> node, or None), size ((width, height) that pictures are letterboxed to by default), rect, stride,
    precision ("float32" or "bfloat16"), defaults.
    """

    def __init__(
        self,
        net: "Network",
        *,
        names: Sequence[str] | str | Path | None = None,
        precision: str = "auto",
        resize: str | None = None,
        rect: bool = False,
        device: str | torch.device = "cpu",
    ) -> None:
        """net: a network that ends in a region layer. A fused copy of it runs, but with its own class rows if
        it is in evaluation mode: when those change later, `run` raises ModelError. names: display names of
        its classes, a sequence or a file. precision: "float32", "bfloat16", or "auto": bfloat16 where the
        processor has instructions for it. resize: how pictures are scaled down: "smooth", averaging as in
        training here, or "darknet"; by default what the model says, else "smooth". rect: the input is no
        larger than a picture scaled into its size needs, in whole strides: less grey to compute on.

        Raises ModelError for a classifier, a wrong number of names, a device that is not there.
        """
        if net.spec.region is None:
            raise ModelError("a detector needs a network that ends in a region layer; this one does not")
        if net.spec.channels != 3:
            raise ModelError(f"photographs have 3 channels, this network takes {net.spec.channels}")
        if precision not in PRECISIONS:
            raise ValueError(f"the precision is one of {', '.join(PRECISIONS)}, not {precision!r}")
        self.net = net
        self.tree: WordTree = tree_of(net, names)
        self.device = find_device(device, ModelError)
        self.hierarchy = Hierarchy(self.tree).to(self.device)
        self.class_map = None if net.class_map is None else torch.as_tensor(net.class_map, dtype=torch.long)
        self.anchors = torch.tensor(net.spec.region.anchors, dtype=torch.float32, device=self.device)
        self.stride = net.stride
        self.defaults: dict[str, Any] = dict(net.defaults)
        self.defaults.pop("size", None)
        own_resize = self.defaults.pop("resize", "smooth")
        try:
            self.size = self.checked_size(net.own_size)
        except ValueError as error:
            raise ModelError(f"the model's own size {net.own_size}: {error}") from error
        if own_resize not in RESIZES:
            raise ModelError(f"the model's own resize is one of {', '.join(RESIZES)}, not {own_resize!r}")
        self.resize = own_resize if resize is None else resize
        if self.resize not in RESIZES:
            raise ValueError(f"resize is one of {', '.join(RESIZES)}, not {self.resize!r}")
        self.rect = rect
        check_defaults(self.defaults)
        bfloat16 = precision == "bfloat16" or (
            precision == "auto" and net.external is None and has_bfloat16(self.device)
        )
        self.precision = "bfloat16" if bfloat16 else "float32"
        self._dtype = torch.bfloat16 if bfloat16 else torch.float32
        self._decision: Decision | None = None
        self._warned: set[int] = set()
        fused, self._loan = fuse(net, self.device)
        self.lazy = self._is_lazy(fused)
        if bfloat16:
            if fused.external is not None:
                fused.external.to(torch.bfloat16)
            for layer in fused.layers:
                # Class rows stay float32: they are applied to a few boxes only. So do sums of evidence.
                if not isinstance(layer, RegionRows | LogSumExpUnit):
                    layer.to(torch.bfloat16)
        self._running = pack(fused.to(memory_format=torch.channels_last).eval(), self.size)

    @classmethod
    def load(cls, path: str | Path | None = None, *, mapped: bool = False, **options: Any) -> "Detector":
        """The detector of a model file, by default the model in the package. mapped: float32 class rows stay
        in the file, which must not be written into, see load_model. options: as Detector(...). Raises
        ModelError."""
        from yolo9000.modelfile import load_model

        return cls(load_model(path, mapped=mapped), **options)

    @classmethod
    def from_darknet(
        cls,
        cfg: str | Path,
        weights: str | Path,
        data_root: str | Path | None = None,
        *,
        precision: str = "float32",
        **options: Any,
    ) -> "Detector":
        """The detector of Darknet's cfg and weights; data_root: the folder that `tree=` and `map=` start
        from. Runs in float32 and on pictures scaled as Darknet scales them, so that results are Darknet's,
        unless told otherwise. options: as Detector(...). Raises ModelError, TreeError."""
        from yolo9000 import darknet

        return cls(darknet.load(cfg, weights, data_root=data_root), precision=precision, **options)

    @overload
    def __call__(self, pictures: "Picture", *a: Any, **b: "Unpack[Keywords]") -> Detections: ...
    @overload
    def __call__(self, pictures: "Pictures", *a: Any, **b: "Unpack[Keywords]") -> list[Detections]: ...
    @overload
    def __call__(self, *, source: Any, **b: "Unpack[Keywords]") -> Detections | list[Detections]: ...
    def __call__(
        self,
        pictures: "Picture | Sequence[Picture] | None" = None,
        threshold: float | None = None,
        rule: str | None = None,
        nms_iou: float | None = None,
        *,
        tree_threshold: float | None = None,
        nms: str | None = None,
        vote_iou: float | None = None,
        size: int | tuple[int, int] | None = None,
        mapped: bool | None = None,
        clip: bool | None = None,
        max_detections: int | None = None,
        level: int | str | Iterable[str | int] | None = None,
        vocabulary: str | Iterable[str | int] | None = None,
        accuracy: float | None = None,
        hedge_lambda: float | None = None,
        score: str | None = None,
        batch: int | None = None,
        **habits: Any,
    ) -> Detections | list[Detections]:
        """Objects on one picture, or on each of a list (then a list comes back).

        pictures: what read_image takes. threshold: boxes with more objectness than this are looked at. rule:
        how the node of the tree is chosen (decision.py): "threshold", "darknet", "leaf", "greedy", "level",
        "vocabulary", "hedge"; tree_threshold: what Pr(node) must exceed for the first two and Pr(node |
        vocabulary) in a vocabulary. level: a depth, or nodes; vocabulary: the nodes that may be answered:
        "coco", "voc", "det", or ids, names and numbers. accuracy: the share of hedged answers that shall be
        right, for which the model is calibrated; hedge_lambda: instead of a calibrated one.

        nms: "related", "class", "agnostic" or "none" (suppression.py), nms_iou: the overlap it allows.
        vote_iou: boxes that overlap so much first vote on where the object is and how sure that is
        (voting.py), 1 = off. size: the network's input, one number or (width, height), multiples of the
        stride. mapped: no descent, but every class of the network's map with objectness x Pr(node) above the
        threshold, as Darknet does with a map. clip: cut boxes to the picture. max_detections: keep the best.
        batch: pictures run at a time, by default what suits the device; it changes results by rounding only
        (in float32 the fifth digit). What is not given is taken from the model's own defaults.

        score, which `scores` of the result are: "objectness", "absolute" (objectness x Pr(node)) or
        "conditional" (objectness x Pr(node | listed nodes), or Pr(node | parent) where none are listed). Not
        given, it is the model's own, else the absolute. Under rule "darknet" they are Darknet's: with a tree
        the objectness alone; with a flat list objectness x Pr for *every* class above the threshold, so one
        box may be answered more than once.

        habits: the words of other YOLO packages for the same, source, conf, iou, imgsz and so on (habits.py).

        Raises ImageError for a picture that cannot be read, ValueError for impossible options, TypeError for
        unknown words.
        """
        known = {part.name for part in dataclasses.fields(Options)}
        given = {name: value for name, value in locals().items() if name in known}
        said = translated(habits, {"pictures": pictures, "size": size, **given})
        pictures, size = said.pop("pictures", pictures), said.pop("size", size)
        if pictures is None:
            raise TypeError("which picture? detector('photo.jpg')")
        options, size = self.options(**{**given, **said}), self._size(size)
        many = isinstance(pictures, list | tuple)
        if many or batch is not None:
            found = list(results(self, pictures if many else [pictures], options, size, batch))
            return found if many else found[0]
        return self.answers([self.fit(pictures, size)], options)[0]

    def options(self, **given: Any) -> Options:
        """The given options, completed by the model's defaults and this module's; None is not given. Without
        a rule, `level`, `vocabulary`, and `accuracy` or `hedge_lambda` ask for theirs; an accuracy goes
        before a default `hedge_lambda`. Warns once of listed nodes that the model can never answer. Raises
        ValueError."""
        options = merged(self.defaults, spoken(given))
        if options.mapped and self.class_map is None:
            raise ValueError("this network has no map of data set classes")
        warn_of_rowless(self.net, self.tree, self._decide(options).cut, self._warned)  # unknown ones raise
        return options

    def find(self, picture: "Picture", options: Options) -> Detections:
        """Objects on one picture by options made once with `options`. Raises ImageError."""
        return self.answers([self.fit(picture)], options)[0]

    def run(self, images: Tensor) -> LazyOutput | Tensor:
        """The network's output for letterboxed pictures (N, 3, H, W) in 0..1: box channels float32; lazy
        where the network can be."""
        if self._loan is not None:
            self._loan.check()
        images = images.to(self.device, self._dtype).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            if not self.lazy:
                return self._running(images).float()
            out = self._running.lazy(images)
            return dataclasses.replace(out, boxes=out.boxes.float())

    @torch.inference_mode()
    def candidates(self, output: LazyOutput | Tensor, options: Options) -> Candidates:
        """What the network's output, lazy or dense (N, A*(5+C), H, W), holds above the threshold, by the
        rule, unsuppressed."""
        return candidates(output, self.anchors, self._decide(options), self.class_map)

    def _decide(self, options: Options) -> Decision:
        """The decision that the options stand for, made once for all batches."""
        decision = self._decision  # read once: another thread may ask with other options
        if decision is None or decision.options is not options:
            decision = self._decision = Decision(self.tree, self.hierarchy, options)
        return decision

    def stream(
        self,
        pictures: "Iterable[Picture] | None" = None,
        *,
        size: int | tuple[int, int] | None = None,
        batch: int | None = None,
        on_error: "Callable[[Picture, ImageError], None] | None" = None,
        **options: Any,
    ) -> Iterator[Detections]:
        """Objects on each of any number of pictures, in their order and as they are ready: all processors
        are kept busy, a few pictures are in memory at a time (pipeline.py).

        pictures: an iterable of what read_image takes, or one such; taken as results are, and each kept as it
        then is: a camera's buffer may be filled again. batch: pictures run at a time, by default what suits
        the device. on_error: told of a picture that cannot be read, which is then passed over; without it the
        ImageError is raised at that picture's turn. options: as __call__; impossible ones raise at once.
        """
        options = spoken({"pictures": pictures, "size": size, **options})
        pictures, size = options.pop("pictures"), options.pop("size")
        pictures, answers = alone_or_all(pictures), self.options(**options)
        return results(self, pictures, answers, self._size(size), batch, on_error)

    def fit(self, picture: "Picture", size: tuple[int, int] | None = None) -> Fitted:
        """A picture read, a large JPEG at reduced size, and letterboxed. size: as `letterboxed`. Any thread.
        Raises ImageError."""
        size = self._size(size)
        if self.resize == "darknet":  # of whole pictures, as Darknet has it
            array, image_size = read_image(picture), None
        else:
            array, image_size = read_reduced(picture, size)
        image, box = self.letterboxed(array, image_size, size)
        source = str(picture) if isinstance(picture, str | Path) else None
        if source is not None:  # a file is read again to draw on; others may not come again
            return Fitted(image, box, source, source)
        encoded = isinstance(picture, bytes | bytearray | memoryview)
        return Fitted(image, box, None, bytes(picture) if encoded else array)

    def letterboxed(
        self, pixels: np.ndarray, image_size: tuple[int, int] | None, size: tuple[int, int] | None = None
    ) -> tuple[Tensor, Letterbox]:
        """Pixels (H, W, 3) uint8 in this detector's input, and where they lie there. image_size: (width,
        height) of the picture that they are a reduced copy of, if they are; size: as of `fit`. Any thread.
        Raises ImageError."""
        how = {"rect": self.stride if self.rect else None, "dtype": self._dtype, "resize": self.resize}
        darknet = self.resize == "darknet"
        return letterbox(pixels, self._size(size), darknet=darknet, image_size=image_size, **how)

    def answers(self, fitted: Sequence[Fitted], options: Options) -> list[Detections]:
        """Objects on pictures from `fit`, run together. Any thread; options: from `options`."""
        answers: dict[int, Detections] = {}
        for rows in alike(fitted):
            images = [fitted[k].image for k in rows]
            # Stacking copies; one picture needs none.
            found = self.candidates(
                self.run(images[0][None] if len(images) == 1 else torch.stack(images)), options
            )
            for i, k in enumerate(rows):
                one = fitted[k]
                answers[k] = self.detections(found.of(i), one.box, options, one.source, one.picture)
        return [answers[k] for k in range(len(fitted))]

    def detections(
        self,
        found: Candidates,
        box: Letterbox,
        options: Options,
        source: str | None = None,
        picture: Any = None,
    ) -> Detections:
        """Suppression, and boxes in pixels of one picture. found: its candidates; box: where it lies."""
        width, height = box.image_size
        score = self._decide(options).score
        boxes = box.to_pixels(found.boxes_cxcywh.cpu().numpy())
        scores, nodes = found.score.cpu().numpy(), found.node.cpu().numpy()
        if options.clip:  # boxes wholly outside must not suppress any inside
            rows = np.flatnonzero(((boxes[:, :2] < (width, height)) & (boxes[:, 2:] > 0)).all(1))
        else:
            rows = np.arange(len(boxes))
        evidence = None
        if options.nms == "related" and score != "conditional":
            evidence = found.evidence(score).cpu().numpy()[rows]
        kept = nms(
            boxes[rows],
            scores[rows],
            nodes[rows],
            options.nms_iou,
            options.nms,
            self.tree.parents,
            evidence,
        )
        rows = rows[kept][: options.max_detections]
        boxes = boxes[rows]
        if options.clip:
            boxes = np.clip(boxes, 0, np.array([width, height, width, height], boxes.dtype))
        paths = [self.tree.path_nodes(int(node)) if node >= 0 else () for node in nodes[rows]]
        log_path = found.log_path.cpu()[torch.from_numpy(rows)]
        path_probabilities = [
            tuple(values[: len(path)]) for values, path in zip(log_path.exp().tolist(), paths, strict=True)
        ]
        if any(value != value for values in path_probabilities for value in values):
            raise ModelError(NO_NUMBER)
        return Detections(
            boxes_xyxy=boxes,
            objectness=found.objectness.cpu().numpy()[rows],
            scores=scores[rows],
            nodes=nodes[rows],
            names=tuple(self.tree.names[path[-1]] if path else SOMETHING for path in paths),
            paths=tuple(tuple(self.tree.ids[k] for k in path) for path in paths),
            image_size=(width, height),
            probabilities=np.array([v[-1] if v else 1.0 for v in path_probabilities], np.float32),
            path_names=tuple(tuple(self.tree.names[k] for k in path) for path in paths),
            path_probabilities=tuple(path_probabilities),
            source=source,
            _picture=picture,
            conditionals=found.log_given.exp().cpu().numpy()[rows],
        )

    @torch.inference_mode()
    def _is_lazy(self, net: "Network") -> bool:
        """Whether a network has a lazy output, tried on a picture of nothing, as small as can be; not if its
        last convolution is not linear 1x1."""
        width, height = (self.stride, self.stride) if net.external is None else self.size
        try:
            net.lazy(torch.zeros(1, 3, height, width, device=self.device))
        except ModelError:
            return False
        return True

    def _size(self, size: int | tuple[int, int] | None) -> tuple[int, int]:
        return self.checked_size(self.size if size is None else size)

    def checked_size(self, size: int | tuple[int, int] | list[int]) -> tuple[int, int]:
        """(width, height) of an input that this network can run. Raises ValueError."""
        sides = tuple(size) if isinstance(size, tuple | list) else (size, size)
        for side in sides:
            whole = isinstance(side, int | np.integer)
            if not whole or side < self.stride or side % self.stride or side > _LARGEST_SIDE:
                raise ValueError(
                    f"the size is a multiple of {self.stride} up to {_LARGEST_SIDE} pixels, not {side}"
                )
        if len(sides) != 2:
            raise ValueError(f"the size is one number or (width, height), not {sides}")
        return int(sides[0]), int(sides[1])
