#!/usr/bin/env python3
"""Measure trees of many sizes: load, path, lca, search, and, where torch is, sibling softmax and descent.

Trees: the default one, all nouns of WordNet below "entity", random ones of 100,000 and 1,000,000 nodes.
"""

import argparse
import importlib.util
import json
import random
import resource
import sys
import tempfile
import time
from pathlib import Path

from wordtree import TreeError, WordTree, wordnet
from wordtree.growth import build
from wordtree.layout import preorder

ROUNDS = 2000  # of path and lca: enough for a mean in microseconds
SEARCHES = 3


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


def measure(tree: WordTree, folder: Path) -> dict[str, float]:
    """Seconds, microseconds and MiB of one tree."""
    path = folder / "tree.json"
    tree.save(path)
    start = time.perf_counter()
    tree = WordTree.load(path)
    found = {"nodes": len(tree), "depth": int(tree.depths.max()), "load_s": time.perf_counter() - start}
    rng = random.Random(0)
    pairs = [(rng.randrange(len(tree)), rng.randrange(len(tree))) for _ in range(ROUNDS)]
    tree.path(0)
    start = time.perf_counter()
    for a, _ in pairs:
        tree.path_nodes(a)
    found["path_us"] = (time.perf_counter() - start) / ROUNDS * 1e6
    start = time.perf_counter()
    for a, b in pairs:
        tree.lca(a, b)
    found["lca_us"] = (time.perf_counter() - start) / ROUNDS * 1e6
    start = time.perf_counter()
    tree.search("thing 77")
    found["first_search_s"] = time.perf_counter() - start
    start = time.perf_counter()
    for _ in range(SEARCHES):
        tree.search("thing 77")
    found["search_s"] = (time.perf_counter() - start) / SEARCHES
    if importlib.util.find_spec("torch"):
        found |= measure_torch(tree)
    found["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # of the program so far
    return found


def measure_torch(tree: WordTree) -> dict[str, float]:
    """Sibling softmax of one row of logits, and descent from it."""
    import torch

    from yolo9000.descent import threshold
    from yolo9000.hierarchy import Hierarchy

    hierarchy = Hierarchy(tree)
    logits = torch.randn(1, len(tree), generator=torch.Generator().manual_seed(0))
    found = {}
    with torch.inference_mode():
        conditionals = hierarchy.log_conditionals(logits)
        start = time.perf_counter()
        hierarchy.log_conditionals(logits)
        found["softmax_ms"] = (time.perf_counter() - start) * 1e3
        threshold(hierarchy, conditionals, 0.2)
        start = time.perf_counter()
        threshold(hierarchy, conditionals, 0.2)
        found["descent_ms"] = (time.perf_counter() - start) * 1e3
    return found


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
            start = time.perf_counter()
            tree = make()
            made = time.perf_counter() - start
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
