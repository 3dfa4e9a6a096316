#!/usr/bin/env python3
"""Measure trees of many sizes: load, path, lca, search, and, where torch is, sibling softmax and descent.

All times are processor time; memory is what a loaded tree holds, and the most that loading held.

Trees: the default one, all nouns of WordNet below "entity", random ones of 100,000 and 1,000,000 nodes.
"""

import argparse
import importlib.util
import json
import random
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

from wordtree import TreeError, WordTree, wordnet
from wordtree.growth import build
from wordtree.layout import preorder

PAIRS = 2000  # of nodes, for path and lca: enough for a mean in microseconds
ROUNDS = 7


def random_tree(n: int, seed: int = 0) -> WordTree:
    """A random recursive tree: every node hangs below a random earlier one; depth grows as log n."""
    rng = random.Random(seed)
    parents = {f"r{i:07d}": f"r{rng.randrange(i):07d}" if i > 9 else None for i in range(n)}
    return WordTree(*preorder(parents), [f"thing {i % (n // 2 + 1)}" for i in range(n)])


def all_nouns() -> WordTree:
    """Every noun of WordNet 3.0 below "entity", kept as it is."""
    nouns = [wordnet.wnid(of) for of in wordnet.reader()]
    root = wordnet.wnid(wordnet.synset("entity.n.01"))
    return build([noun for noun in nouns if noun != root], root=root, grafts={}, promotion=False)


def seconds(work: Callable[[], object], rounds: int = 1) -> float:
    """Processor time of one round, the least of `rounds`: what else runs on the machine only adds."""
    found = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return min(found)


def measure(tree: WordTree, folder: Path) -> dict[str, float]:
    """Seconds, microseconds and MiB of one tree."""
    path = folder / "tree.json"
    tree.save(path)
    found: dict[str, float] = {"nodes": len(tree), "depth": int(tree.depths.max())}
    found["file_mb"] = path.stat().st_size / 1e6
    del tree
    found["load_s"] = seconds(lambda: WordTree.load(path))
    tracemalloc.start()
    tree = WordTree.load(path)
    found["memory_mib"], found["peak_mib"] = (size / 2**20 for size in tracemalloc.get_traced_memory())
    tracemalloc.stop()
    rng = random.Random(0)
    pairs = [(rng.randrange(len(tree)), rng.randrange(len(tree))) for _ in range(PAIRS)]
    tree.path(0)
    found["path_us"] = seconds(lambda: [tree.path_nodes(a) for a, _ in pairs], ROUNDS) / PAIRS * 1e6
    found["lca_us"] = seconds(lambda: [tree.lca(a, b) for a, b in pairs], ROUNDS) / PAIRS * 1e6
    found["first_search_s"] = seconds(lambda: tree.search("thing 77"))
    found["search_ms"] = seconds(lambda: tree.search("thing 77"), ROUNDS) * 1e3
    found["first_name_s"] = seconds(lambda: tree.lookup.called("thing 77"))
    found["name_us"] = seconds(lambda: tree.lookup.called("thing 77"), ROUNDS) * 1e6
    if importlib.util.find_spec("torch"):
        found |= measure_torch(tree)
    return found


def measure_torch(tree: WordTree) -> dict[str, float]:
    """Sibling softmax of one row of logits, and descent from it."""
    import torch

    from yolo9000.descent import threshold
    from yolo9000.hierarchy import Hierarchy

    torch.set_num_threads(1)
    hierarchy = Hierarchy(tree)
    logits = torch.randn(1, len(tree), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        conditionals = hierarchy.log_conditionals(logits)
        softmax = seconds(lambda: hierarchy.log_conditionals(logits), ROUNDS)
        descent = seconds(lambda: threshold(hierarchy, conditionals, 0.2), ROUNDS)
    return {"softmax_ms": softmax * 1e3, "descent_ms": descent * 1e3}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Example: scripts/bench_tree.py --random 100000 --json",
    )
    parser.add_argument("--random", type=int, nargs="*", default=[100_000, 1_000_000], metavar="NODES")
    parser.add_argument("--no-wordnet", action="store_true", help="leave WordNet's nouns out")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    makers = {"default": WordTree.default}
    if not options.no_wordnet:
        makers["wordnet nouns"] = all_nouns
    makers |= {f"random {n:,}": lambda n=n: random_tree(n) for n in options.random}
    rows = {}
    for name, make in makers.items():
        try:
            start = time.process_time()
            tree = make()
            made = time.process_time() - start
        except TreeError as error:
            print(f"{name}: left out ({error})", file=sys.stderr)
            continue
        with tempfile.TemporaryDirectory() as folder:
            rows[name] = {"make_s": made} | measure(tree, Path(folder))
        if not options.json:
            print(
                f"{name:>18}  "
                + "  ".join(f"{k} {v:,.3g}" if v < 1e3 else f"{k} {v:,.0f}" for k, v in rows[name].items())
            )
    if options.json:
        print(json.dumps(rows, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
