"""The versions that pyproject.toml allows are those that are tried: constraints-oldest.txt has them."""

import re
import tomllib
from itertools import chain
from pathlib import Path

ROOT = Path(__file__).parents[1]

# Extras that are part of the package in use; the others are for working on it.
EXTRAS = ("serve", "export", "video", "tensorboard", "demo", "supervision", "pandas", "ray", "hub")

_REQUIREMENT = re.compile(r"([A-Za-z0-9_-]+)(?:\[\w+\])?>=([0-9.]+)")
_PIN = re.compile(r"([A-Za-z0-9_-]+)==([0-9.]+)")


def numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def test_the_oldest_versions_are_those_that_are_allowed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    allowed = {}
    for requirement in chain(project["dependencies"], *(extras[name] for name in EXTRAS)):
        name, version = _REQUIREMENT.fullmatch(requirement).groups()
        allowed[name] = max(allowed.get(name, ()), numbers(version))
    lines = (ROOT / "constraints-oldest.txt").read_text().splitlines()
    oldest = dict(_PIN.fullmatch(line).groups() for line in lines if not line.startswith("#"))
    assert oldest.keys() == allowed.keys()
    for name in oldest.keys() - {"torch", "click"}:  # the file says why
        version = numbers(oldest[name])
        assert version[: len(allowed[name])] == allowed[name], name
    assert numbers(oldest["torch"]) >= allowed["torch"] and numbers(oldest["click"]) >= allowed["click"]
