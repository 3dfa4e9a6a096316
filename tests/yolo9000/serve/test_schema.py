"""Queries read by our own way against FastAPI's, which is general and slower."""

from typing import Annotated, Any

import pytest
from fastapi import FastAPI
from fastapi import Query as InQuery
from fastapi.exceptions import RequestValidationError
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st

from yolo9000.serve.schema import Query, query_parameters, read_query

APP = FastAPI()
CLIENT = TestClient(APP)
NAMES = [*Query.model_fields, "batch", "THRESHOLD", ""]
VALUES = [
    "0.5",
    "1e400",
    "nan",
    "-1",
    "2",
    "leaf",
    "none",
    "dog",
    "dog,cat",
    "",
    " ",
    "true",
    "%ff%fe",
    "a+b",
    "%26",
]


@APP.get("/")
async def theirs(query: Annotated[Query, InQuery()]) -> dict[str, Any]:
    return query.model_dump(exclude_none=True)


def test_they_are_described_as_fastapi_would():
    assert query_parameters() == APP.openapi()["paths"]["/"]["get"]["parameters"]


@settings(max_examples=200)
@given(st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(VALUES)), max_size=4))
def test_they_are_read_as_fastapi_would(pairs):
    text = "&".join(f"{name}={value}" for name, value in pairs)
    answer = CLIENT.get(f"/?{text}")
    try:
        ours = read_query(text.encode()).model_dump(exclude_none=True)
    except RequestValidationError as error:
        assert answer.status_code == 422
        said = [(tuple(one["loc"]), one["msg"]) for one in answer.json()["detail"]]
        assert [(tuple(one["loc"]), one["msg"]) for one in error.errors()] == said
    else:
        assert (answer.status_code, answer.json()) == (200, ours)


def test_what_was_read_once_is_not_read_again():
    assert read_query(b"nms=none&level=dog") is read_query(b"nms=none&level=dog")
    for _ in range(2):
        with pytest.raises(RequestValidationError):
            read_query(b"nms=all")
