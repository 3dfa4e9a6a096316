"""`yolo9000 serve`: a page to try a model on and a JSON API, on 127.0.0.1 unless told otherwise."""

import os
import sys
from pathlib import Path

import click

from wordtree.console import Command
from yolo9000.cli import _pictures
from yolo9000.errors import ModelError

# A secret on the command line is seen by everybody on the machine.
TOKEN_VARIABLE = "YOLO9000_TOKEN"

_MIB = 1 << 20


@click.command(
    cls=Command,
    epilog="Examples: yolo9000 serve  |  yolo9000 serve --model animals.safetensors --port 9000  |  "
    "YOLO9000_TOKEN=$(cat token) yolo9000 serve --host 0.0.0.0",
)
@_pictures.model_options
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at; 0.0.0.0: all.")
@click.option(
    "--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="0: one that is free."
)
@click.option(
    "--allow-host",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="Name by which the server may be called, repeatedly.  [default: local names on 127.0.0.1, else any]",
)
@click.option(
    "--token-file",
    type=_pictures.FILE,
    help=f"File with a token that clients have to send.  [default: {TOKEN_VARIABLE} in the environment]",
)
@click.option("--size", type=_pictures.Size(), help="Input of the network, 416 or 608x416.")
@_pictures.rect_option
@click.option("--precision", type=click.Choice(("auto", "float32", "bfloat16")), help="As of detect.")
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda.")
@click.option(
    "--batch",
    type=click.IntRange(1, 256),
    help="Pictures together.  [default: 2 on a processor, for more outgrow its cache, 16 on a GPU]",
)
@click.option(
    "--queue", default=128, show_default=True, type=click.IntRange(1), help="Pictures waiting; more: 503."
)
@click.option("--decoders", default=2, show_default=True, type=click.IntRange(1, 64), help="Processes.")
@click.option(
    "--max-body", default=20, show_default=True, type=click.IntRange(1, 4096), help="MiB of a request."
)
@click.option(
    "--max-held", default=256, show_default=True, type=click.IntRange(1), help="MiB of all bodies together."
)
@click.option("--max-pictures", default=16, show_default=True, type=click.IntRange(1), help="A request.")
@click.option(
    "--max-pixels", default=50_000_000, show_default=True, type=click.IntRange(1), help="Of one picture."
)
@click.option(
    "--body-seconds", default=30.0, show_default=True, type=click.FloatRange(0.1), help="For a whole body."
)
@click.option(
    "--decode-seconds", default=10.0, show_default=True, type=click.FloatRange(0.1), help="For one picture."
)
@click.option(
    "--drain-seconds", default=30.0, show_default=True, type=click.FloatRange(0.1), help="After SIGTERM."
)
def command(
    model: Path | None,
    cfg: Path | None,
    weights: Path | None,
    data_root: Path | None,
    names: str | None,
    host: str,
    port: int,
    hosts: tuple[str, ...],
    token_file: Path | None,
    size: tuple[int, int] | None,
    rect: bool,
    precision: str | None,
    device: str,
    batch: int | None,
    queue: int,
    decoders: int,
    max_body: int,
    max_held: int,
    max_pictures: int,
    max_pixels: int,
    body_seconds: float,
    decode_seconds: float,
    drain_seconds: float,
) -> None:
    """Serve a page to try a model on, and a JSON API (docs/serving.md; /openapi.json describes it).

    Listens on this machine only unless --host says otherwise. SIGTERM and Ctrl-C answer what was begun and
    end the server. Needs the extra `serve`: pip install 'yolo9000[serve]'.
    """
    _pictures.check_model_options(model, cfg, weights, data_root)
    try:
        from yolo9000.serve import server
        from yolo9000.serve.guard import Access, is_local
    except ImportError as error:
        raise ModelError(
            f"the server needs packages that are not here ({error.name}): pip install 'yolo9000[serve]'"
        ) from error
    from yolo9000.serve.limits import Limits

    try:
        limits = Limits(
            body_bytes=max_body * _MIB,
            held_bytes=max(max_held, max_body) * _MIB,
            body_seconds=body_seconds,
            pictures=min(max_pictures, queue),
            pixels=max_pixels,
            decode_seconds=decode_seconds,
            queue=queue,
            batch=batch,
            drain_seconds=drain_seconds,
        )
    except ValueError as error:
        raise _pictures.usage(error) from None
    token = read_token(token_file)
    bound = server.bind(host, port)  # what is taken is told before a model is loaded

    from yolo9000.detector import Detector
    from yolo9000.modelfile import read_info
    from yolo9000.serve.app import make_app

    net = _pictures.load_network(model, cfg, weights, data_root)
    try:
        detector = Detector(
            net,
            names=names,
            device=device,
            rect=rect,
            precision=precision or ("float32" if cfg else "auto"),
        )
        if size is not None:
            detector.size = detector.checked_size(size)
    except ValueError as error:
        raise _pictures.usage(error) from None
    fingerprint = None if cfg else read_info(model, verify=False).sha256
    access = Access.for_host(host, token, hosts)
    app = make_app(detector, fingerprint, limits=limits, access=access, decoders=decoders)
    if token is None and not is_local(host):
        click.echo("warning: anybody who reaches this address may use the server; see --token-file", err=True)

    def started() -> None:
        click.echo(f"yolo9000 is at {server.address(bound)}  (Ctrl-C ends it)")
        sys.stdout.flush()

    server.run(app, bound, limits, started)


def read_token(path: Path | None) -> str | None:
    """The token of a file or of the environment, None where neither is. Raises ModelError for a file that
    cannot be read and for a token that no header can carry."""
    if path is None:
        token = os.environ.get(TOKEN_VARIABLE)
        where = TOKEN_VARIABLE
    else:
        where = str(path)
        try:
            token = path.read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise ModelError(f"{path}: no token can be read there ({error})") from error
    if token is None:
        return None
    if not token or not token.isascii() or not token.isprintable() or " " in token or len(token) > 1000:
        raise ModelError(f"{where}: a token is 1 to 1,000 printable ASCII signs without blanks")
    return token
