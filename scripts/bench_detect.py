#!/usr/bin/env python3
"""From the bytes of a JPEG to named boxes with paths: this package beside the dense network under OpenCV,
ONNX Runtime and OpenVINO.

One network, YOLO9000 with 9,418 classes and random weights whose objectness is set so that as many boxes pass
as on a photograph (time depends on how many, not on which). Each contender is a process of two threads
(detect_peers.py); they are asked in turn, round by round, and rest meanwhile; medians count. Ratios are
medians over the rounds of the other's time by ours: more than 1 is slower than this package. "cpu" is
processor time of all threads, waiting for one another included; with --threads 1 it says most where other
programs run, too.
"""

import importlib.util
import json
import logging
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
from detect_peers import OWN, PEERS

OURS = OWN[0]
CONTENDERS = (*OWN, *PEERS)
MODULES = {"opencv": "cv2", "onnxruntime": "onnxruntime", "openvino": "openvino", "openvino-bf16": "openvino"}
PICTURES = {"640x480": (640, 480), "12MP": (4000, 3000)}
SURVIVORS = 10  # boxes above the threshold before suppression: a busy photograph's
THRESHOLD = 0.2  # the detector's own
NOISE = 6  # standard deviation, of 255: an enlarged photograph alone has smaller files than a camera's
WARM = 48  # runs before anything counts: by then our layers have their programs
STREAMED = 12  # pictures at a time by Detector.stream; enough to fill its pipeline
RUNS = 3  # of each contender in each of its turns, after one that warms the caches it shares with others
STAGES = ("decode", "letterbox", "network", "head", "suppression", "naming")
MATMULS = (1024, 2048, 3072)  # sides; the fastest counts as the peak
PHOTO = Path(__file__).parents[1] / "docs" / "pictures" / "run.jpg"
_TITLES = ("", "total ms", "x ours", "cpu ms", "x ours", *STAGES, "peak MiB", "load s", "boxes")
_WIDTH = 12


class Worker:
    """A contender's process; ask it by what detect_peers.answer takes."""

    def __init__(self, name: str, folder: Path, threads: int) -> None:
        self.name = name
        script = Path(__file__).with_name("detect_peers.py")
        started = time.perf_counter()
        self._process = subprocess.Popen(
            [sys.executable, str(script), name, str(folder), str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(folder / f"{name}.log").open("w"),
            text=True,
        )
        self._log = folder / f"{name}.log"
        self._read()
        self.load_s = time.perf_counter() - started

    def ask(self, what: str, runs: int = RUNS, **more: Any) -> dict[str, Any]:
        self._process.stdin.write(json.dumps({"what": what, "runs": runs, **more}) + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            said = (self._log.read_text().strip().splitlines() or ["no message"])[-1]
            raise click.ClickException(f"{self.name} ended with {self._process.wait()}: {said}")
        return json.loads(line)

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


def prepare(folder: Path, size: int, photo: Path, dense: bool) -> float:
    """Writes pictures, model file, tree and, if asked for, the dense network as ONNX. Returns the operations
    of the body, in GFLOP."""
    import numpy as np
    import torch
    from PIL import Image

    from wordtree import WordTree
    from yolo9000.images import read_image
    from yolo9000.letterbox import letterbox
    from yolo9000.modelfile import save_model
    from yolo9000.network import Network
    from yolo9000.presets import yolo9000

    random = np.random.default_rng(0)
    for name, extent in PICTURES.items():
        picture = Image.fromarray(read_image(photo)).resize(extent, Image.Resampling.LANCZOS)
        if name == "12MP":
            noise = random.normal(0, NOISE, (*extent[::-1], 3))
            picture = Image.fromarray((np.asarray(picture) + noise).clip(0, 255).astype(np.uint8))
        picture.save(folder / f"{name}.jpg", quality=90)
    torch.manual_seed(0)
    tree = WordTree.default()
    net = Network(yolo9000(tree, image_size=size), tree).eval()
    with torch.inference_mode():
        image, _ = letterbox(read_image(folder / "640x480.jpg"), (size, size), resize="smooth")
        raw = net.lazy(image[None]).boxes
        highest = raw[0, 4::5].flatten().sort(descending=True).values  # (A*5, H, W) -> (A*H*W,)
        limit = torch.tensor(THRESHOLD).logit()
        shift = limit - highest[SURVIVORS - 1 : SURVIVORS + 1].mean()
    with torch.no_grad():
        conv = net.layers[-2].conv
        conv.bias.view(len(net.anchors), -1)[:, 4] += shift  # (A*(5+C),) -> (A, 5+C)
    save_model(net, folder / "model.safetensors")
    facts = {"size": size, "threshold": THRESHOLD, "names": tree.names, "ids": tree.ids}
    (folder / "facts.json").write_text(json.dumps(facts))
    arrays = {name: getattr(tree, name) for name in ("parents", "group_starts", "child_group")}
    np.savez(folder / "tree.npz", anchors=net.anchors.numpy(), **arrays)
    if dense:
        fused = net.fuse().requires_grad_(False)
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it would tell that torchvision is not there
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            export = torch.onnx.export(
                fused, (image[None],), input_names=["images"], dynamo=True, verbose=False
            )
        export.save(folder / "dense.onnx")
    return 2e-9 * _products(net, len(net.spec) - 2, size)


def _products(net: Any, layers: int, size: int) -> float:
    """Multiplications of the convolutions among the first so many layers."""
    total = 0.0
    for index in range(layers):
        conv = getattr(net.layers[index], "conv", None)
        if conv is not None:
            total += conv.weight.numel() * (size / net.spec.outputs[index].stride) ** 2
    return total


def measure(workers: dict[str, Worker], rounds: int, size: int, progress: Any, most: float) -> dict[str, Any]:
    """Milliseconds: of each contender on each picture by round, total and stages; of the body and of the
    one call that a user makes, beside them; and of the matrix products. most: seconds after which no further
    round begins."""
    for name, worker in workers.items():
        worker.ask("detect", runs=WARM, picture=next(iter(PICTURES)))
        if name.startswith(OURS):  # two pictures at a time, in two lanes
            worker.ask("stream", runs=1, picture=next(iter(PICTURES)), count=4 * WARM)
    began = time.perf_counter()
    found: dict[str, Any] = {name: {p: [] for p in PICTURES} for name in workers}
    more: dict[str, Any] = {name: defaultdict(list) for name in workers}
    products: dict[int, list[float]] = {side: [] for side in MATMULS}
    boxes: dict[str, int] = {}
    for turn in progress(range(rounds)):
        if turn and time.perf_counter() - began > most:
            break
        names = list(workers)[:: 1 if turn % 2 else -1]
        for picture in PICTURES:
            for name in names:
                said = workers[name].ask("detect", picture=picture)
                boxes[f"{name} {picture}"] = len(said["names"])
                stages = said["stages"]
                row = {s: 1e3 * statistics.median(run.get(s, 0) for run in stages) for s in (*STAGES, "cpu")}
                total = statistics.median(sum(run.get(stage, 0) for stage in STAGES) for run in stages)
                found[name][picture].append({**row, "total": 1e3 * total})
                if name.startswith(OURS):
                    seconds = workers[name].ask("whole", picture=picture)["seconds"]
                    more[name][picture].append(1e3 * statistics.median(seconds))
                    streamed = workers[name].ask("stream", runs=1, picture=picture, count=STREAMED)
                    more[name][f"{picture} stream"].append(1e3 * streamed["seconds"][0])
        for name in names:
            if name.startswith(OURS):
                seconds = workers[name].ask("body", size=size)["seconds"]
                more[name]["body"].append(1e3 * statistics.median(seconds))
        if OURS in workers:
            for side in MATMULS:
                seconds = workers[OURS].ask("matmul", size=side)["seconds"]
                products[side].append(1e3 * statistics.median(seconds))
    return {"found": found, "more": more, "products": products, "boxes": boxes}


def summary(measured: dict[str, Any], workers: dict[str, Worker], gflop: float) -> dict[str, Any]:
    """Medians and ratios by picture and contender, and the facts about our body."""
    found, more = measured["found"], measured["more"]
    result: dict[str, Any] = {}
    for picture in PICTURES:
        rows = result[picture] = {}
        for name, worker in workers.items():
            rounds = found[name][picture]
            row = {key: statistics.median(r[key] for r in rounds) for key in rounds[0]}
            if OURS in found:
                pairs = list(zip(rounds, found[OURS][picture], strict=True))
                row["ratio"] = statistics.median(a["total"] / b["total"] for a, b in pairs)
                row["cpu_ratio"] = statistics.median(a["cpu"] / b["cpu"] for a, b in pairs)
            row["peak_mib"] = worker.ask("memory")["peak"] / 2**20
            row["load_s"] = worker.load_s
            row["boxes"] = measured["boxes"][f"{name} {picture}"]
            if name.startswith(OURS):
                body = more[name]["body"]
                pairs = list(zip(body, more[name][picture], strict=True))
                row["one_call"] = statistics.median(more[name][picture])
                row["body"] = statistics.median(body)
                row["whole_by_body"] = statistics.median(a / b for a, b in pairs)
                pairs = list(zip(body, more[name][f"{picture} stream"], strict=True))
                row["stream"] = statistics.median(b for _, b in pairs)
                row["stream_by_body"] = statistics.median(a / b for a, b in pairs)
                around = [stage for stage in STAGES if stage not in ("network", "head")]
                row["around"] = statistics.median(sum(r[s] for s in around) / r["total"] for r in rounds)
            rows[name] = row
    if OURS in workers:
        rate = {s: 2e-9 * s**3 / statistics.median(t) for s, t in measured["products"].items()}  # TFLOP/s
        peak = max(rate.values())
        reached = gflop / statistics.median(more[OURS]["body"])
        result["body"] = {"gflop": gflop, "tflops": reached, "matmul_tflops": peak, "share": reached / peak}
    return result


def show(result: dict[str, Any], skipped: dict[str, str]) -> None:
    for picture in PICTURES:
        click.echo(f"\n{picture}")
        click.echo(f"{'':15}" + "".join(f"{title:>{_WIDTH}}" for title in _TITLES[1:]))
        for name in CONTENDERS:
            if name in skipped:
                click.echo(f"{name:15}  not measured: {skipped[name]}")
            row = result[picture].get(name)
            if row is None:
                continue
            keys = ("total", "ratio", "cpu", "cpu_ratio", *STAGES, "peak_mib", "load_s", "boxes")
            cells = (f"{row[key]:{_WIDTH}.2f}" if key in row else f"{'-':>{_WIDTH}}" for key in keys)
            click.echo(f"{name:15}" + "".join(cells))
        for name in OWN:
            if (row := result[picture].get(name)) is not None:
                click.echo(
                    f"{name}: the body alone {row['body']:.2f} ms; one call {row['one_call']:.2f} ms, "
                    f"{row['whole_by_body']:.3f} of the body's pictures a second; {STREAMED} streamed "
                    f"{row['stream']:.2f} ms each, {row['stream_by_body']:.3f}; decoding, letterbox, "
                    f"suppression and naming {100 * row['around']:.1f}% of the total"
                )
    if "body" in result:
        b = result["body"]
        click.echo(
            f"\nbody: {b['gflop']:.1f} GFLOP at {b['tflops']:.3f} TFLOP/s, {b['share']:.2f} of "
            f"the {b['matmul_tflops']:.3f} of a matrix product"
        )


@click.command(epilog="Example: scripts/bench_detect.py --rounds 15 --json detect.json")
@click.option("--size", type=click.IntRange(32), default=416, show_default=True, help="Pixels a side.")
@click.option("--rounds", type=click.IntRange(1), default=11, show_default=True, help="The median counts.")
@click.option("--seconds", default=150, show_default=True, help="No further round begins after these.")
@click.option("--threads", type=click.IntRange(1), default=2, show_default=True, help="Of each contender.")
@click.option("--only", type=click.Choice(CONTENDERS), multiple=True, help="These alone; repeatable.")
@click.option("--photo", type=click.Path(exists=True, path_type=Path), default=PHOTO, help="What they see.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Also write the figures there.")
def main(
    size: int,
    rounds: int,
    seconds: int,
    threads: int,
    only: tuple[str, ...],
    photo: Path,
    json_file: Path | None,
) -> None:
    """Time and peak memory from JPEG to named boxes, ours beside other runtimes."""
    if size % 32:
        raise click.UsageError("--size is a multiple of the stride, 32")
    from tqdm import tqdm

    skipped, wanted = {}, []
    for name in CONTENDERS:
        module = MODULES.get(name)
        if only and name not in only:
            continue
        missing = [m for m in ("cv2", module) if module and not importlib.util.find_spec(m)]
        if missing:
            skipped[name] = f"{', '.join(missing)} is not installed (pip install 'yolo9000[bench]')"
        else:
            wanted.append(name)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        gflop = prepare(folder, size, photo, dense=any(name in PEERS for name in wanted))
        weights = {name: (folder / f"{name}.jpg").stat().st_size for name in PICTURES}
        workers = {name: Worker(name, folder, threads) for name in tqdm(wanted, desc="start", leave=False)}
        try:
            progress = lambda turns: tqdm(turns, desc="rounds", leave=False)  # noqa: E731
            measured = measure(workers, rounds, size, progress, seconds)
            result = summary(measured, workers, gflop)
        finally:
            for worker in workers.values():
                worker.close()
    facts = {
        "processor": _processor(),
        "threads": threads,
        "size": size,
        "rounds": len(next(iter(measured["found"].values()))["640x480"]),
        **{f"{name} bytes": weight for name, weight in weights.items()},
        **_versions(),
    }
    click.echo(", ".join(f"{name} {value}" for name, value in facts.items()))
    show(result, skipped)
    if json_file:
        json_file.write_text(json.dumps({**facts, **result, "skipped": skipped}, indent=1) + "\n")


def _processor() -> str:
    """The processor's name, and which of bfloat16's instructions it has."""
    import torch

    has = {"AVX512-BF16": torch.cpu._is_avx512_bf16_supported(), "AMX": torch.cpu._is_amx_tile_supported()}
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    found = ", ".join(kind for kind, there in has.items() if there) or "no bfloat16"
    return f"{names[0] if names else platform.processor()} ({found})"


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for package in ("torch", "Pillow", "opencv-python-headless", "onnxruntime", "openvino"):
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


if __name__ == "__main__":
    main()
