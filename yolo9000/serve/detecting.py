"""POST /v1/detect: from a request to its answer. Limits are enforced by what it calls."""

import asyncio
import io
import json
import time
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request, Response
from PIL import Image

from wordtree.words import typed_names
from yolo9000.cuts import SETS, spelt_out
from yolo9000.serve.answers import Answerer, Question
from yolo9000.serve.batching import Batcher
from yolo9000.serve.bodies import read_pictures
from yolo9000.serve.browsing import Finder
from yolo9000.serve.decoding import Decoders
from yolo9000.serve.limits import LONGEST_TEXT, MOST_LISTED, Limits, RequestError
from yolo9000.serve.metrics import Metrics
from yolo9000.serve.schema import BODY, Answer, problems, query_parameters, read_query

# Who hung up is not answered; the number is what nginx writes into its log for it.
GONE = 499


def make_router(
    answerer: Answerer,
    batcher: Batcher,
    decoders: Decoders,
    find: Finder,
    limits: Limits,
    metrics: Metrics,
) -> APIRouter:
    """The route over one detector."""
    router = APIRouter()

    async def one(data: bytes, options: Any, floor: float | None) -> dict[str, Any]:
        began = time.perf_counter()
        image, box = await decoders(data, answerer.fit)
        metrics.decode_seconds.observe(time.perf_counter() - began)
        answer = await batcher(Question(image, box, options, floor))
        metrics.pictures.add()
        return answer

    @router.post(
        "/v1/detect",
        response_model=Answer,
        responses=problems(400, 401, 403, 404, 408, 409, 413, 415, 421, 422, 500, 503),
        openapi_extra={"requestBody": BODY, "parameters": query_parameters()},
        summary="Find objects on one or several pictures",
        description="The body is one picture, or a form with several files. All are answered or none: an "
        "error names the first picture that cannot be read. Nothing in a request is opened as a path or URL.",
    )
    async def detect(request: Request) -> Response:
        given = read_query(request.scope["query_string"]).model_dump(exclude_none=True)
        floor = given.pop("candidates", None)
        for name in ("level", "vocabulary"):
            if name in given:
                given[name] = _nodes(find, name, given[name])
        wanted = answerer.known(given)
        if wanted is None:
            try:
                wanted = await batcher.in_thread(answerer.wanted, given)
            except ValueError as error:
                raise RequestError(409, str(error)) from None
        options = wanted.options
        if floor is not None and (options.rule != "threshold" or options.mapped):
            raise RequestError(409, "candidates go with rule=threshold")
        pictures = await read_pictures(request.headers, request.stream(), limits)
        with batcher.admit(len(pictures)):
            work = asyncio.gather(*(one(data, options, floor) for data in pictures), return_exceptions=True)
            del pictures
            found = await _unless_gone(work, request)
        if found is None:
            return Response(status_code=GONE)
        for k, answer in enumerate(found):
            if isinstance(answer, RequestError) and len(found) > 1:
                raise RequestError(answer.status, f"picture {k + 1}: {answer.reason}", answer.retry)
            if isinstance(answer, BaseException):
                raise answer
        record = {"model": answerer.model, "tree": answerer.tree, "pictures": found}
        if wanted.warnings:
            record["warnings"] = wanted.warnings
        if floor is not None:  # megabytes
            text = await asyncio.to_thread(_to_json, record)
        else:
            text = _to_json(record)
        return Response(text, media_type="application/json")

    return router


async def warm_up(answerer: Answerer, batcher: Batcher, decoders: Decoders) -> None:
    """One picture through everything, so that the first client does not wait and a server that cannot work
    does not start."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    image, box = await decoders(file.getvalue(), answerer.fit)
    wanted = await batcher.in_thread(answerer.wanted, {})
    await batcher(Question(image, box, wanted.options))


async def _unless_gone(work: asyncio.Future, request: Request) -> list[Any] | None:
    """What `work` gives, None if the client hangs up before: then it is cancelled."""
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            # Nobody waits for it any more; what nobody looked at asyncio would write into the log.
            work.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
            work.cancel()
            return None
        return work.result()
    finally:
        gone.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _nodes(find: Finder, name: str, listed: list[str]) -> int | str | tuple[int, ...]:
    """A depth, the name of a data set, or nodes, as Options wants them. Raises RequestError."""
    texts = [text for entry in listed for text in typed_names(entry)]
    if len(texts) == 1 and texts[0].lower() in SETS:
        return texts[0].lower()
    if name == "level" and len(texts) == 1 and texts[0].isdecimal():
        return min(int(texts[0]), len(find.tree))
    if not texts or len(texts) > MOST_LISTED:
        raise RequestError(422, f"{name} is 1 to {MOST_LISTED} nodes")
    if (longest := max(map(len, texts))) > LONGEST_TEXT:
        raise RequestError(422, f"{name} names a node with {longest} letters; {LONGEST_TEXT} are the most")
    nodes, reasons = [], []
    for text in spelt_out(find.tree, dict.fromkeys(texts)):
        try:
            nodes.append(find(str(text)))
        except RequestError as error:
            reasons.append(error.reason)
    if reasons:
        raise RequestError(404, "; ".join(reasons))
    return tuple(nodes)


def _to_json(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
