#!/usr/bin/env python3
"""What do the tree's operations cost beside one `torch.log_softmax` over the same tensor?

Sibling log-softmax (forward, and forward with backward), sums along paths, and descent, for 1, 100 and 10,000
boxes on the default tree and on random ones. Beside ours, the four ways one would write a sibling softmax
first: a loop over groups, split and cat, padding every group to the largest, and scatter. All give the same
values, which is checked. Times are processor time, the median of a few turns; ratios are of torch.log_softmax
measured in the same turns. What holds a tensor of more than 2 GiB is left out, and so is any form on which
one turn takes more than 20 seconds.
"""

import json
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import click
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from wordtree import WordTree
from yolo9000.descent import descend
from yolo9000.hierarchy import Hierarchy, log_softmax_segments

LARGEST = 2 * 2**30  # bytes of one tensor
LONGEST = 20  # seconds of one turn
SAME = 1e-4  # log probabilities of other forms differ by rounding only
FORMS = ("ours", "loop", "split", "padding", "scatter")
OPERATIONS = (*FORMS, "backward", "paths", "greedy", "threshold", "leaf")


def random_tree(nodes: int, seed: int = 0) -> WordTree:
    """A random recursive tree: every node hangs below a random earlier one, siblings side by side."""
    random = np.random.default_rng(seed)
    parents = np.floor(random.random(nodes) * np.arange(nodes)).astype(np.int64)
    parents[0] = -1
    return WordTree([f"r{k:07d}" for k in range(nodes)], np.sort(parents).tolist())


def by_loop(hierarchy: Hierarchy, logits: Tensor) -> Tensor:
    """One group after another, written where it belongs."""
    result = torch.empty_like(logits)
    starts = hierarchy.group_starts.tolist()
    for first, last in pairwise(starts):
        result[:, first:last] = logits[:, first:last].log_softmax(1)
    return result


def by_split(hierarchy: Hierarchy, logits: Tensor) -> Tensor:
    """All groups at once as a list, and back."""
    sizes = hierarchy.group_starts.diff().tolist()
    return torch.cat([part.log_softmax(1) for part in logits.split(sizes, 1)], 1)


def by_padding(hierarchy: Hierarchy, logits: Tensor) -> Tensor:
    """Every group as long as the longest."""
    starts, longest = hierarchy.group_starts[:-1], int(hierarchy.group_starts.diff().max())
    column = torch.arange(hierarchy.nodes) - starts[hierarchy.group_of] + hierarchy.group_of * longest
    padded = logits.new_full((len(logits), hierarchy.groups * longest), -torch.inf)
    padded[:, column] = logits
    return padded.view(len(logits), -1, longest).log_softmax(2).flatten(1)[:, column]


def by_scatter(hierarchy: Hierarchy, logits: Tensor) -> Tensor:
    """Largest entries and sums added up by index."""
    values = logits.T.contiguous()
    return log_softmax_segments(values, hierarchy.group_of, hierarchy.groups).T


def both_ways(work: Callable[[Tensor], Tensor], logits: Tensor, gradient: Tensor) -> None:
    """Forward and backward."""
    logits.grad = None
    work(logits).backward(gradient)


def seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def timed(works: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each, all in turns; slow ones run fewer times. Less than `LONGEST` each."""
    found: dict[str, list[float]] = {}
    repeats = {}
    for name, work in works.items():  # warms up, and shows how often a clock tick needs it
        first = seconds(work)
        repeats[name] = max(1, min(50, int(0.01 / max(first, 1e-6))))
        found[name] = [first] if first > 1 else []
    for _ in range(rounds):
        for name, work in works.items():
            if sum(found[name]) > 1:
                continue
            found[name].append(
                seconds(lambda f=work, k=repeats[name]: [f() for _ in range(k)]) / repeats[name]
            )
    return {name: statistics.median(values) for name, values in found.items()}


def measure(hierarchy: Hierarchy, boxes: int, rounds: int) -> dict[str, float | None]:
    """Seconds of torch.log_softmax, and the ratios to it of each operation, None where it was left out."""
    torch.manual_seed(0)
    logits = torch.randn(boxes, hierarchy.nodes)
    others = {"loop": by_loop, "split": by_split, "padding": by_padding, "scatter": by_scatter}
    longest = int(hierarchy.group_starts.diff().max())
    if boxes * hierarchy.groups * longest * 4 > LARGEST:
        del others["padding"]
    if boxes * hierarchy.groups * 1e-6 > LONGEST:  # about a microsecond a group and box, at the least
        del others["loop"], others["split"]
    expected = hierarchy.log_conditionals(logits)
    for name, form in others.items():
        if not torch.allclose(form(hierarchy, logits), expected, atol=SAME):
            raise click.ClickException(f"{name} and ours give different values")
    works: dict[str, Callable[[], object]] = {
        "torch": lambda: logits.log_softmax(1),
        "ours": lambda: hierarchy.log_conditionals(logits),
        **{name: partial(form, hierarchy, logits) for name, form in others.items()},
        "paths": lambda: hierarchy.log_probabilities(expected),
    }
    for rule in ("greedy", "threshold", "leaf"):
        works[rule] = partial(descend, hierarchy, expected, rule)
    with torch.inference_mode():
        found = timed(works, rounds)
    learning, gradient = logits.clone().requires_grad_(), torch.randn_like(logits)
    ways = {"torch": lambda x: x.log_softmax(1), "ours": hierarchy.log_conditionals}
    learned = timed({k: partial(both_ways, way, learning, gradient) for k, way in ways.items()}, rounds)
    ratios = {name: found[name] / found["torch"] if name in found else None for name in OPERATIONS}
    ratios["backward"] = learned["ours"] / learned["torch"]
    return {"torch_ms": found["torch"] * 1e3, **ratios}


@click.command(epilog="Example: scripts/bench_softmax.py --nodes 100000 --boxes 100 --json")
@click.option("--nodes", type=int, multiple=True, default=(9418, 100_000, 1_000_000), show_default=True)
@click.option("--boxes", type=click.IntRange(1), multiple=True, default=(1, 100, 10_000), show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="The median counts.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(nodes: tuple[int, ...], boxes: tuple[int, ...], rounds: int, as_json: bool) -> None:
    """The tree's operations as multiples of one torch.log_softmax over the same tensor."""
    default = WordTree.default()
    cases = []
    for count in tqdm(nodes, desc="trees", leave=False):
        tree = default if count == len(default) else random_tree(count)
        hierarchy = Hierarchy(tree)
        for m in tqdm(boxes, desc=f"{count:,} nodes", leave=False):
            case: dict[str, object] = {"nodes": count, "boxes": m}
            if m * count * 4 > LARGEST:
                cases.append({**case, "left_out": "over 2 GiB"})
                continue
            cases.append({**case, **measure(hierarchy, m, rounds)})
    facts = {"threads": torch.get_num_threads(), "torch": torch.__version__, "machine": platform.machine()}
    if as_json:
        click.echo(json.dumps({**facts, "cases": cases}, indent=1))
        return
    click.echo(", ".join(f"{name} {value}" for name, value in facts.items()))
    click.echo(f"{'nodes':>9} {'boxes':>6} {'torch ms':>9}" + "".join(f"{name:>10}" for name in OPERATIONS))
    for case in cases:
        line = f"{case['nodes']:>9,} {case['boxes']:>6,}"
        if "left_out" in case:
            click.echo(f"{line}  left out: {case['left_out']}")
            continue
        cells = (f"{'-':>10}" if case[k] is None else f"{case[k]:10.2f}" for k in OPERATIONS)
        click.echo(f"{line} {case['torch_ms']:9.3f}" + "".join(cells))


if __name__ == "__main__":
    main()
