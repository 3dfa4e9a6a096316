"""GET /v1/tree/...: the model's tree. Nodes are named by id, synset, unique name or synonym, or index.

Guesses at misspelt names, which take long on large trees, are not made here: there is a search."""

import gzip
import hashlib
import json
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from wordtree import TreeError
from wordtree.page import tree_columns
from yolo9000.serve.answers import Answerer
from yolo9000.serve.limits import LONGEST_TEXT, RequestError
from yolo9000.serve.schema import Node, Nodes, Tree

if TYPE_CHECKING:
    from wordtree import WordTree

# Nodes of one answer; the page asks for all at once by another route.
_MOST = 1000

# What the record of a model lists under "nodes", strongest first.
_TAUGHT = ("boxes", "labels", "teacher")

NodeText = Annotated[
    str,
    Query(
        min_length=1,
        max_length=LONGEST_TEXT,
        description="Id, synset name, unique name or synonym, or index.",
        examples=["n02084071"],
    ),
]


class Finder:
    """Nodes by what clients call them, exactly; made once for a tree."""

    def __init__(self, tree: "WordTree") -> None:
        self.tree = tree
        tree.lookup.called("")  # made now rather than with the first question

    def __call__(self, text: str) -> int:
        """The index of one node. Raises RequestError for none, or several of that name."""
        tree = self.tree
        found = tree.lookup.called(text)
        if not found and text.isdecimal() and text.isascii():
            try:
                return tree.lookup.typed(text[:18])
            except TreeError as error:
                raise RequestError(404, str(error)) from error
        if len(found) == 1:
            return found[0]
        if found:
            ids = ", ".join(tree.ids[k] for k in found[:12])
            raise RequestError(404, f"{text!r} may be any of {ids}")
        raise RequestError(404, f"no node is called {text!r}; try /v1/tree/search")


def taught_by(record: Any, nodes: int) -> list[str]:
    """For each node the strongest of what taught it, by the record of a model: "boxes", "labels", "teacher",
    "nothing"; "unknown" for all where the record does not say."""
    lists = record.get("nodes") if isinstance(record, dict) else None
    if not isinstance(lists, dict):
        return ["unknown"] * nodes
    taught = ["nothing"] * nodes
    for kind in reversed(_TAUGHT):
        for node in lists.get(kind, ()):
            if isinstance(node, int) and 0 <= node < nodes:
                taught[node] = kind
    return taught


def make_router(answerer: Answerer, find: Finder, problems: Any) -> APIRouter:
    """The routes over one tree. problems: schema.problems."""
    router = APIRouter(prefix="/v1/tree")
    tree = answerer.detector.tree
    taught = taught_by(getattr(answerer.detector.net, "record", None), len(tree))
    columns = json.dumps(
        {**tree_columns(tree, taught), "model": answerer.model}, ensure_ascii=False, separators=(",", ":")
    ).encode()
    packed = gzip.compress(columns, 6, mtime=0)
    tag = f'"{hashlib.sha256(columns).hexdigest()[:32]}"'
    described = {"responses": problems(401, 403, 404, 421, 422), "response_model": Nodes}

    def node(k: int) -> Node:
        return Node(
            index=k,
            id=tree.ids[k],
            name=tree.names[k],
            synset=(tree.synsets[k] or None) if tree.synsets else None,
            synonyms=list(tree.synonyms[k]) if tree.synonyms else [],
            gloss=(tree.glosses[k] or None) if tree.glosses else None,
            sources=list(tree.sources[k]) if tree.sources else [],
            depth=tree.depth(k),
            children=len(tree.children(k)),
            taught=taught[k],
        )

    def answer(nodes: Any) -> Nodes:
        return Nodes(model=answerer.model, tree=answerer.tree, nodes=[node(k) for k in nodes])

    @router.get("", response_model=Tree, responses=problems(401, 403, 421), summary="The tree in figures")
    def whole() -> Tree:
        title = tree.about.get("title")
        return Tree(
            model=answerer.model,
            tree=answerer.tree,
            nodes=len(tree),
            roots=[node(k) for k in tree.roots[:_MOST]],
            leaves=len(tree.leaves),
            depth=int(tree.depths.max()),
            title=title if isinstance(title, str) else None,
        )

    @router.get("/path", **described, summary="The way from the root down to a node")
    def path(node: NodeText) -> Nodes:
        return answer(tree.path_nodes(find(node)))

    @router.get("/children", **described, summary="What lies directly below a node")
    def children(node: NodeText) -> Nodes:
        return answer(tree.children(find(node))[:_MOST])

    @router.get("/search", **described, summary="Nodes with a text in name, synonym or id; closest first")
    def search(
        q: Annotated[str, Query(min_length=1, max_length=LONGEST_TEXT, examples=["husk"])],
        limit: Annotated[int, Query(ge=1, le=_MOST)] = 20,
    ) -> Nodes:
        return answer(tree.search(q, limit))

    @router.get("/lca", **described, summary="The lowest node above (or equal to) both; none: no nodes")
    def lca(a: NodeText, b: NodeText) -> Nodes:
        found = tree.lca(find(a), find(b))
        return answer(() if found is None else (found,))

    @router.get(
        "/columns",
        summary="All nodes, column by column, for the pages",
        responses={200: {"content": {"application/json": {"schema": {"type": "object"}}}}}
        | problems(401, 403, 421),
    )
    def all_columns(request: Request) -> Response:
        headers = {"etag": tag, "cache-control": "private, no-cache", "vary": "Accept-Encoding"}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        if "gzip" in request.headers.get("accept-encoding", ""):
            headers["content-encoding"] = "gzip"
            return Response(packed, media_type="application/json", headers=headers)
        return Response(columns, media_type="application/json", headers=headers)

    return router
