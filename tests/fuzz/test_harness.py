"""The fuzzer finds what was planted, goes on after it, and makes the same case again."""

import json
import os
import signal
import subprocess
import sys
import time
from random import Random

import pytest

from tests.fuzz import mutate, planted
from tests.fuzz.harness import NAMES, ROOT, find_reader, fuzz
from tests.fuzz.reader import case

SEED = 5
KINDS = {
    "fine": None,
    "talk": None,
    "crash": "crash",
    "silent": "crash",
    "death": "crash",
    "misread": "misread",
    "memory": "memory",
    "grow": "memory",
    "hang": "hang",
}


@pytest.mark.parametrize("name", KINDS)
def test_planted_faults_are_found(name):
    reader = next(r for r in planted.READERS if r.name == name)
    numbers = [int(case(reader, [b""], SEED, k) or 0) for k in range(planted.CASES)]
    bad = [k for k, number in enumerate(numbers) if number and number % 3 == 0]
    assert 2 <= len(bad) < planted.CASES
    if name == "hang":
        bad = bad[:1]  # one is enough of waiting
    count = bad[0] + 1 if name == "hang" else planted.CASES
    seconds = 5 if name == "hang" else 30  # the machine may be busy
    found = fuzz(name, SEED, count, seconds=seconds, memory=1 << 30, module="tests.fuzz.planted")
    assert found.cases == count
    if KINDS[name] is None:
        assert not found.findings
        return
    assert {f.kind for f in found.findings} == {KINDS[name]}
    if name == "grow":  # the high-water mark of memory tells the first one only
        assert found.findings[0].case == bad[0]
    else:
        assert [f.case for f in found.findings] == bad
    assert found.accepted + found.refused == count - len(found.findings)


@pytest.mark.parametrize("name", [n for n in NAMES if n != "request"])
def test_a_case_is_a_function_of_its_number(name):
    reader = find_reader(name)
    seeds = reader.seeds()
    first = [case(reader, seeds, 1, k) for k in range(20)]
    assert first == [case(reader, seeds, 1, k) for k in range(20)]
    assert len(set(first)) > 10 and first != [case(reader, seeds, 2, k) for k in range(20)]


def test_an_unknown_reader_is_refused():
    with pytest.raises(ValueError, match="no reader 'x'; there are tree"):
        find_reader("x")


def test_edits_of_values_leave_the_original():
    value = {"a": [1, {"b": 2}], "c": "x"}
    before = json.dumps(value)
    for k in range(200):
        mutate.edit_value(Random(k), value)
    assert json.dumps(value) == before


@pytest.mark.parametrize("edit", [mutate.edit_bytes, mutate.edit_text])
@pytest.mark.parametrize("data", [b"", b"\n", b"\xff", b"a b\n1 2\n"])
def test_edits_take_anything(edit, data):
    found = {edit(Random(k), data) for k in range(50)}
    assert all(isinstance(one, bytes) for one in found) and len(found) > 3


def command(*arguments: str) -> list[str]:
    return [sys.executable, str(ROOT / "scripts" / "fuzz"), *arguments]


def test_the_script_tells_seed_and_summary():
    run = subprocess.run(
        command("--reader", "map", "--count", "50", "--seed", "7", "--json"), capture_output=True, text=True
    )
    assert run.returncode == 0 and run.stderr == "seed 7\n"
    told = json.loads(run.stdout)
    assert told["seed"] == 7 and not told["interrupted"]
    (one,) = told["readers"]
    assert one["reader"] == "map" and one["cases"] == one["accepted"] + one["refused"] == 50


def test_the_script_makes_a_case_again():
    reader = find_reader("map")
    run = subprocess.run(command("--reader", "map", "--seed", "7", "--case", "3"), capture_output=True)
    assert run.stdout == case(reader, reader.seeds(), 7, 3) and run.returncode == 0


@pytest.mark.skipif(os.name != "posix", reason="signals are sent as POSIX has them")
def test_the_script_ends_on_an_interrupt_with_what_it_has():
    run = subprocess.Popen(
        command("--reader", "map", "--count", "10000000", "--seed", "7", "--json"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a shell's background job inherits it ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert run.stderr.readline() == "seed 7\n"
        time.sleep(2)
        run.send_signal(signal.SIGINT)
        out, _ = run.communicate(timeout=30)
    finally:
        run.kill()
    assert run.returncode == 130
    told = json.loads(out)
    assert told["interrupted"] and told["readers"][0]["cases"] < 10_000_000
