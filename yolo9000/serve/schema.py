"""The shapes of questions and answers, for checking and for the OpenAPI description.

What they mean for a detector is Detector.__call__'s; how answers are made answers.py's."""

from functools import lru_cache
from typing import Annotated, Any, Literal

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import QueryParams

from yolo9000.serve.limits import LONGEST_LIST, MOST_LISTED

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1, max_length=LONGEST_LIST, pattern=r"[^\s,]")]

DETECTION: dict[str, Any] = {
    "name": "dalmatian",
    "id": "n02110341",
    "node": 5021,
    "score": 0.81234,
    "objectness": 0.9,
    "probability": 0.9026,
    "conditional": 0.97,
    "box_xyxy": [12.5, 30.0, 310.25, 288.0],
    "path": ["n00002684", "n02084071", "n02110341"],
    "path_names": ["object", "dog", "dalmatian"],
    "path_probabilities": [0.99, 0.9305, 0.9026],
}


_FORMS = ("jpeg", "png", "webp", "avif", "gif", "bmp")
_BINARY = {"schema": {"type": "string", "format": "binary", "minLength": 1}}
BODY: dict[str, Any] = {
    "required": True,
    "content": {f"image/{form}": _BINARY for form in _FORMS}
    | {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["pictures"],
                "additionalProperties": False,
                "properties": {"pictures": {"type": "array", "minItems": 1, "items": _BINARY["schema"]}},
            },
            "encoding": {"pictures": {"contentType": ", ".join(f"image/{form}" for form in _FORMS)}},
        },
    },
}


class Query(BaseModel):
    """How detections are chosen. What is not given is taken from the model's own defaults, as on the command
    line; `level`, `vocabulary`, and `accuracy` or `hedge_lambda` ask for their rule by themselves."""

    model_config = ConfigDict(extra="forbid")

    threshold: Share | None = Field(None, description="Least objectness of a box.")
    rule: Literal["threshold", "darknet", "leaf", "greedy", "level", "vocabulary", "hedge"] | None = Field(
        None, description="How the node of the tree is chosen."
    )
    tree_threshold: Share | None = Field(None, description="Least Pr(node) to go on down the tree.")
    nms: Literal["related", "class", "agnostic", "none"] | None = Field(
        None, description="Which boxes suppress each other."
    )
    nms_iou: Share | None = Field(None, description="Overlap above which they do.")
    vote_iou: Share | None = Field(
        None, description="Overlap from which boxes vote on place and objectness; 1 = none."
    )
    level: list[Text] | None = Field(
        None,
        max_length=MOST_LISTED,
        description="A depth (roots: 0), or nodes, as of `vocabulary`.",
    )
    vocabulary: list[Text] | None = Field(
        None,
        max_length=MOST_LISTED,
        description="The nodes that may be answered: ids, names, indices, or `coco`, `voc`, `det` for those "
        "of a data set; repeated, or with commas between them.",
    )
    accuracy: Share | None = Field(None, description="Share of answers that shall be right (rule hedge).")
    hedge_lambda: float | None = Field(
        None, ge=0, allow_inf_nan=False, description="Instead of a calibrated accuracy."
    )
    score: Literal["objectness", "absolute", "conditional"] | None = Field(
        None, description="What boxes are ordered by."
    )
    mapped: bool | None = Field(None, description="Answer with the classes of the network's map only.")
    max_detections: int | None = Field(None, ge=1, le=10_000, description="Boxes of one picture at most.")
    candidates: Share | None = Field(
        None,
        description="Also answer all boxes with more objectness than this, before suppression, with the log "
        "conditionals of every node: what it takes to choose again without the network.",
    )


def query_parameters() -> list[dict[str, Any]]:
    """Query's fields as the OpenAPI description has parameters."""
    found = []
    for name, schema in Query.model_json_schema()["properties"].items():
        about = {"description": schema["description"]} if "description" in schema else {}
        schema = {key: value for key, value in schema.items() if key != "default"}
        found.append({"name": name, "in": "query", "required": False, "schema": schema, **about})
    return found


@lru_cache(64)  # clients ask the same again and again; FastAPI's own way takes a fifth of what HTTP costs
def read_query(text: bytes) -> Query:
    """What follows the question mark of an address. Raises RequestValidationError."""
    given = QueryParams(text)
    lists = ("level", "vocabulary")
    try:
        fields = {name: given.getlist(name) if name in lists else given[name] for name in given}
        return Query.model_validate(fields)
    except ValidationError as error:
        wrong = [{**one, "loc": ("query", *one["loc"])} for one in error.errors()]
        raise RequestValidationError(wrong) from None


class Detection(BaseModel):
    """One object. Probabilities in 0..1; box in pixels of the upright picture: left, top, right, bottom."""

    model_config = ConfigDict(json_schema_extra={"example": DETECTION})

    name: str
    id: str | None = Field(description="Id of the node, null for `something`.")
    node: int = Field(description="Index of the node, -1 for `something`.", ge=-1)
    score: float = Field(description="Objectness times probability, unless `score` asks for another.")
    objectness: float
    probability: float = Field(description="Pr(node): the product of the conditionals on its path.")
    conditional: float = Field(description="Pr(node | its parent), or Pr(node | the listed nodes).")
    box_xyxy: list[float] = Field(min_length=4, max_length=4)
    path: list[str] = Field(description="Ids, root first, the node itself last.")
    path_names: list[str]
    path_probabilities: list[float] = Field(description="Pr of each node on the path.")


class CandidateOptions(BaseModel):
    """What the detections beside the candidates were chosen with."""

    threshold: float
    tree_threshold: float
    nms: str
    nms_iou: float
    clip: bool
    max_detections: int


class Candidates(BaseModel):
    """All boxes above a floor, before a node is chosen and before suppression, M of them."""

    floor: float = Field(description="Every box with more objectness than this is here.")
    nodes: int = Field(description="C, the nodes of the tree.")
    boxes_xyxy: list[list[float]] = Field(description="(M, 4) pixels of the picture, not clipped to it.")
    objectness: list[float] = Field(description="(M,)")
    log_conditionals: str = Field(
        description="(M, C) log Pr(node | parent): float32, little endian, row by row, in base 64."
    )
    options: CandidateOptions


class PictureAnswer(BaseModel):
    """What is on one picture."""

    width: int
    height: int
    detections: list[Detection]
    candidates: Candidates | None = None


class Answer(BaseModel):
    """The answer to a request, one entry a picture in the order they came."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "model": "5039e16b51c1...",
                "tree": "c2f3a5d0e7b9...",
                "pictures": [{"width": 640, "height": 480, "detections": [DETECTION]}],
            }
        }
    )

    model: str = Field(description="SHA-256 that the model file carries.")
    tree: str = Field(description="SHA-256 over ids and parents of the tree.")
    pictures: list[PictureAnswer]
    warnings: list[str] | None = Field(
        None, description="Asked for in vain, such as nodes that the model never learnt; a line each."
    )


class Problem(BaseModel):
    """Why a request was not answered."""

    model_config = ConfigDict(json_schema_extra={"example": {"error": "the body is empty; send a picture"}})

    error: str = Field(description="One line.")


class Node(BaseModel):
    """One node of the tree."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "index": 30,
                "id": "n02084071",
                "name": "dog",
                "synset": "dog.n.01",
                "synonyms": ["domestic dog"],
                "gloss": "a member of the genus Canis",
                "sources": ["imagenet", "coco"],
                "depth": 9,
                "children": 18,
                "taught": "boxes",
            }
        }
    )

    index: int
    id: str
    name: str
    synset: str | None
    synonyms: list[str]
    gloss: str | None
    sources: list[str] = Field(description="Whose label it is; empty for a node that only holds others.")
    depth: int
    children: int = Field(description="How many.")
    taught: Literal["boxes", "labels", "teacher", "nothing", "unknown"] = Field(
        description="What the model saw of it in training: boxes, labels of whole pictures, another model's "
        "answers, or nothing; unknown where the model does not say."
    )


class Nodes(BaseModel):
    """Some nodes, and whose tree they are of."""

    model: str
    tree: str
    nodes: list[Node]


class Tree(BaseModel):
    """A whole tree in figures."""

    model: str
    tree: str
    nodes: int
    roots: list[Node]
    leaves: int
    depth: int
    title: str | None


class Health(BaseModel):
    """Whether the server stands."""

    status: str


PROBLEMS = {
    400: "The body is empty or no form.",
    401: "A token is wanted.",
    403: "A page of another site asks.",
    404: "There is no such node.",
    405: "Not by this method.",
    408: "The body did not arrive in time.",
    409: "Options that do not go together, or that this model cannot do.",
    413: "The body or the picture is too large.",
    415: "Not a picture, or of a format that is not taken.",
    421: "The server does not go by that name.",
    422: "The picture is damaged, or an option is none.",
    500: "A fault of the server.",
    503: "The queue is full; Retry-After says when to try again.",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's description of the errors a route answers with."""
    return {status: {"model": Problem, "description": PROBLEMS[status]} for status in statuses}
