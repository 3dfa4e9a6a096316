"""Fixtures for the tests of the tree."""

import pytest

from wordtree import TreeError, wordnet


@pytest.fixture(scope="session")
def needs_wordnet():
    """A skip that says why, where WordNet 3.0 is not at hand."""
    try:
        wordnet.find()
    except TreeError as error:
        pytest.skip(str(error))
