"""The application: routes, checks and errors around one detector, as an ASGI callable.

What each part does is in its own file; running it on a socket is server.py's."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp

import yolo9000
from yolo9000.serve import browsing, detecting, metrics, pages
from yolo9000.serve.answers import Answerer, fingerprint
from yolo9000.serve.batching import Batcher
from yolo9000.serve.bodies import Held
from yolo9000.serve.decoding import Decoders
from yolo9000.serve.guard import FAULT, Access, Guard, extra_headers
from yolo9000.serve.limits import Limits, RequestError, one_line
from yolo9000.serve.schema import Health, Problem, problems

if TYPE_CHECKING:
    from yolo9000.detector import Detector

_TEXT = {"schema": {"type": "string"}}
_ABOUT = """Objects on photographs, each named by a node of a tree, as exactly as the model is sure of.

Answers carry `model` and `tree`, fingerprints of what made them. Errors are `{"error": "one line"}`."""


def make_app(
    detector: "Detector",
    model: str | None = None,
    *,
    limits: Limits | None = None,
    access: Access | None = None,
    decoders: int = 2,
    lanes: int | None = None,
) -> ASGIApp:
    """The whole server but for its socket.

    detector: asked by several threads. model: fingerprint of its file; by default one is made of its
    weights. decoders: processes that decode pictures, from the start of the application to its end. lanes:
    threads that run the network, see Batcher. The FastAPI application is `.app` of what is returned.
    """
    limits, access = limits or Limits(), access or Access()
    measured, held = metrics.Metrics(), Held()
    answerer = Answerer(detector, model or fingerprint(detector.net), limits.candidates)
    batcher = Batcher(answerer, limits, measured, lanes)
    decode = Decoders(limits, decoders, answerer.reduced)
    finder = browsing.Finder(detector.tree)
    ready = False
    measured.gauge(
        "yolo9000_queue_pictures", "Pictures admitted and not yet answered.", lambda: batcher.inside
    )
    measured.gauge("yolo9000_body_bytes", "Bytes of requests' bodies in memory.", lambda: held.bytes)
    measured.gauge(
        "yolo9000_decoder_restarts", "Decoding processes lost to a picture.", lambda: decode.restarts
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        nonlocal ready
        decode.start()
        batcher.start()
        await detecting.warm_up(answerer, batcher, decode)
        ready = True
        yield
        ready = False
        await batcher.close()
        decode.close()

    app = FastAPI(
        title="yolo9000",
        version=yolo9000.__version__,
        description=_ABOUT,
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    _answer_errors(app)

    @app.get("/healthz", responses=problems(421), summary="Whether the process answers")
    async def healthz() -> Health:
        return Health(status="ok")

    @app.get("/readyz", responses=problems(421, 503), summary="Whether pictures may be sent")
    async def readyz() -> Health:
        if not ready or batcher.inside >= limits.queue:
            raise RequestError(503, "the queue is full" if ready else "not ready", retry=1)
        return Health(status="ready")

    @app.get(
        "/metrics",
        responses={200: {"content": {"text/plain": _TEXT}}} | problems(401, 403, 421),
        response_class=Response,
        summary="Counts and times, as Prometheus reads them",
    )
    async def measures() -> Response:
        return Response(measured.text(), headers={"content-type": metrics.CONTENT_TYPE})

    app.include_router(detecting.make_router(answerer, batcher, decode, finder, limits, measured))
    app.include_router(browsing.make_router(answerer, finder, problems))
    app.include_router(pages.make_router())
    return Guard(app, access, limits, measured, held)


def _answer_errors(app: FastAPI) -> None:
    """Every error as {"error": one line}."""

    @app.exception_handler(RequestError)
    async def refused(request: Request, error: RequestError) -> Response:
        return _problem(error.status, error.reason, extra_headers(error))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part != "query")
        return _problem(422, f"{where}: {first['msg']}")

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        return _problem(error.status_code, str(error.detail), error.headers)

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=detecting.GONE)  # nobody reads it

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        return _problem(500, FAULT)


def _problem(status: int, reason: str, headers=None) -> Response:
    return JSONResponse(Problem(error=one_line(reason)).model_dump(), status, headers=headers)
