"""Exported files: the graph traced once, written for one runtime with its description, whole or not at all.

What the graph computes is graph.py's, what the file says of itself description.py's."""

import io
import logging
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from wordtree.files import written_whole
from yolo9000.detector import Detector
from yolo9000.errors import ModelError
from yolo9000.export.description import KEY, describe
from yolo9000.export.graph import CANDIDATES, INPUTS, OUTPUTS, RAW_OUTPUTS, DetectorGraph, RawGraph
from yolo9000.options import Options

if TYPE_CHECKING:
    import onnx
    from torch.export import ExportedProgram

# Format -> suffix of its file, and the packages that making it needs.
FORMATS: dict[str, tuple[str, tuple[str, ...]]] = {
    "pt2": (".pt2", ()),
    "onnx": (".onnx", ("onnx", "onnxscript")),
    "openvino": (".xml", ("onnx", "onnxscript", "openvino")),
}

STAGES = ("tracing", "converting", "writing")

# Values of the pictures or the raw channels of one call: 1 GiB; some runtimes put no more into one tensor.
_MOST_VALUES = 2**28

# Candidates of all pictures of a call: the table of overlaps is square, 256 MiB.
_MOST_CANDIDATES = 2**13

# ScatterElements with a maximum ("leaf") came with 18; old enough for every runtime in use.
_OPSET = 18

# A protocol buffer, which an ONNX file is, ends here.
_MOST_ONNX = 2**31


def export(
    detector: Detector,
    path: str | Path,
    format: str | None = None,
    *,
    options: Options | None = None,
    raw: bool = False,
    size: int | tuple[int, int] | None = None,
    batch: int = 1,
    candidates: int = CANDIDATES,
    source: Mapping[str, Any] | None = None,
    tell: Callable[[str], None] = lambda stage: None,
) -> list[Path]:
    """Write a detector as a file for another runtime; returns what was written.

    format: one of FORMATS, by default that of the path's suffix. options: as `detector.options(...)` makes
    them; by default the model's. raw: the network's channels instead of detections. size: the input, by
    default the detector's. batch: pictures a call. candidates: boxes a picture that are looked at, at most.
    source: JSON-able, put into the description. tell: called with the name of each of STAGES as it begins. It
    is always exported in float32, whatever the detector runs in.

    Raises ModelError for an unknown format, a package that is missing, options that have no graph, a network
    that cannot be traced, a file that cannot be written, a .bin without the .xml that it would be replaced
    with; ValueError for an impossible size.
    """
    path = Path(path)
    format = _format(path, format)
    targets = _targets(path, format)
    size = detector.checked_size(detector.size if size is None else size)
    _check_size(detector, size, batch, candidates, raw)
    options = detector.options() if options is None else options
    if raw:
        graph: torch.nn.Module = RawGraph(detector)
    else:
        graph = DetectorGraph(detector, options, size, batch, candidates)
    text = describe(detector, None if raw else options, size, batch, candidates, source)
    # Written whole, the one that is opened last; and first of all it is seen whether they can be written.
    with ExitStack() as stack:
        parts = [stack.enter_context(written_whole(target, ModelError)) for target in targets]
        for part in parts:
            part.touch()
        tell("tracing")
        program = _traced(graph, size, batch, raw)
        tell("converting")
        model = None if format == "pt2" else _to_onnx(program, path, text, raw)
        tell("writing")
        if format == "pt2":
            saved = io.BytesIO()  # so that a full disk is an OSError, not its writer's own
            with _quiet():
                torch.export.save(program, saved, extra_files={KEY: text})
            parts[0].write_bytes(saved.getbuffer())
        elif format == "onnx":
            parts[0].write_bytes(model.SerializeToString())
        else:
            _write_openvino(model, text, *parts)
    return targets


def _format(path: Path, format: str | None) -> str:
    """The format asked for, or that of the suffix. Raises ModelError unless both fit and its packages are
    there."""
    if format is None:
        known = {suffix: name for name, (suffix, _) in FORMATS.items()}
        if path.suffix not in known:
            raise ModelError(f"{path}: no format is named {path.suffix!r}; {', '.join(known)} are")
        format = known[path.suffix]
    if format not in FORMATS:
        raise ModelError(f"the format is one of {', '.join(FORMATS)}, not {format!r}")
    suffix, packages = FORMATS[format]
    if path.suffix != suffix:
        raise ModelError(f"{path}: a file of the format {format} is named {suffix}")
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise ModelError(
            f"the format {format} needs {' and '.join(missing)}, not installed here: "
            "pip install 'yolo9000[export]'"
        )
    return format


def _targets(path: Path, format: str) -> list[Path]:
    """The files that are written. Raises ModelError where one that nobody named would be replaced."""
    if format != "openvino":
        return [path]
    weights = path.with_suffix(".bin")
    if weights.exists() and not path.exists():
        raise ModelError(
            f"{weights}: would be replaced, and is there without {path.name}, so it may be something else; "
            "move it away, or name another file"
        )
    return [path, weights]


def _check_size(detector: Detector, size: tuple[int, int], batch: int, candidates: int, raw: bool) -> None:
    """Raises ModelError where one call would take absurdly much memory."""
    if batch < 1:
        raise ModelError(f"the batch is at least 1 picture, not {batch}")
    cells = (size[0] // detector.stride) * (size[1] // detector.stride)
    channels = len(detector.anchors) * (5 + detector.net.classes) if raw else 0
    values = batch * max(3 * size[0] * size[1], channels * cells)
    if values > _MOST_VALUES:
        raise ModelError(f"one call would take {values:,} values; choose a smaller size or batch")
    most = batch * min(candidates, len(detector.anchors) * cells)
    if not raw and most > _MOST_CANDIDATES:
        raise ModelError(
            f"one call would look at {most:,} boxes, of at most {_MOST_CANDIDATES:,}; choose fewer "
            "candidates or a smaller batch"
        )


def _traced(graph: torch.nn.Module, size: tuple[int, int], batch: int, raw: bool) -> "ExportedProgram":
    images = torch.zeros(batch, 3, size[1], size[0])
    given = (images,) if raw else (images, torch.tensor([size] * batch))
    try:
        with _quiet(), torch.no_grad():
            return torch.export.export(graph.eval(), given, strict=False)
    except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ModelError(f"torch.export cannot trace this network: {reason}") from error


def _to_onnx(program: "ExportedProgram", path: Path, text: str, raw: bool) -> "onnx.ModelProto":
    outputs = RAW_OUTPUTS if raw else OUTPUTS
    inputs = ["images"] if raw else list(INPUTS)
    try:
        with _quiet():
            made = torch.onnx.export(
                program,
                dynamo=True,
                verbose=False,
                opset_version=_OPSET,
                input_names=inputs,
                output_names=list(outputs),
            )
    except torch.onnx.errors.OnnxExporterError as error:
        reason = str(error).strip().partition("\n")[0]
        raise ModelError(f"this network has no form in ONNX: {reason}") from error
    model = made.model_proto
    if model.ByteSize() >= _MOST_ONNX:
        raise ModelError(f"{path}: {model.ByteSize():,} bytes; an ONNX file ends at {_MOST_ONNX:,}")
    entry = model.metadata_props.add()
    entry.key, entry.value = KEY, text
    return model


def _write_openvino(model: "onnx.ModelProto", text: str, graph: Path, weights: Path) -> None:
    """graph, weights: where the .xml and the .bin go."""
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "model.onnx"
        source.write_bytes(model.SerializeToString())
        made = Path(folder) / "model.xml"  # it takes no other suffix
        try:
            converted = openvino.convert_model(source)
            converted.set_rt_info(text, [KEY])
            openvino.save_model(converted, made, compress_to_fp16=False)
        except Exception as error:  # whatever its converter meets; it has no class of its own
            reason = str(error).strip().partition("\n")[0]
            raise ModelError(f"OpenVINO cannot convert this network: {reason}") from error
        shutil.copyfile(made, graph)
        shutil.copyfile(made.with_suffix(".bin"), weights)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' remarks (torchvision that is not there, their own deprecations)."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
