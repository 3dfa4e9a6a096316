"""Fixtures for all tests."""

import gc
from pathlib import Path

import pytest

from wordtree import TreeError, wordnet

# Reference results lie beside the checkout, never inside it.
_SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_collection_finish() -> None:
    """What was imported so far is there to stay. A full collection that goes through it stops this process,
    and servers under test within it, for most of a second.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference results, or a skip that says so."""
    if not (_SHARED / "SPEC.md").is_file():
        pytest.skip("the reference results (../shared) are not beside this checkout")
    return _SHARED


@pytest.fixture(scope="session")
def needs_wordnet():
    """A skip that says why, where WordNet 3.0 is not at hand."""
    try:
        wordnet.find()
    except TreeError as error:
        pytest.skip(str(error))
