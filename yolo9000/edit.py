"""A trained model carried to an edited tree: which class rows stay, which go, and how new ones begin.

A class that stays keeps its rows bit for bit; a class that is gone takes them along; every other tensor stays
as it is, log-sum-exp layers among them, because they are features that rows are applied to.

The row of a class that had no siblings says nothing: its softmax was 1 whatever the row, which never learnt.
Where such a class gets siblings it takes the row of the first class above it that had some, for all that was
known of it was known of that one. So a chain of only children that becomes one node (wordtree.tidy) is as
probable as the chain was. A class whose siblings were edited away has learnt: the model's record says so.

A new class begins where its parent's evidence says:

  * beside siblings that keep their rows, with the mean of those rows, which is what the children of that
    parent have in common. Its logit is the mean of its siblings', whose exponential is at most the mean of
    their exponentials: of n siblings and m new ones each new one gets at most 1 / (n + m), and the less the
    surer the model is of one sibling. Theirs shrink by one common factor, so they stay in proportion.
  * with no such sibling, with its parent's row: the same for the whole group, so Pr(child | parent) is the
    same for all of them.

No probability outside the new class's sibling group moves but those below its siblings, by the same factor.
Where an ancestor of a new class has no row (a model may store rows for some nodes only) no descent could
reach the class, so the ancestor gets one by the same rule, and the group touched is that of the highest such.

Not here: editing trees (wordtree.edit), files (modelfile.py), teaching the new row (docs/hierarchy.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wordtree import WordTree
from wordtree.difference import carry
from yolo9000.classrows import class_layer, row_nodes, row_parameters, view_rows
from yolo9000.cuts import resolve
from yolo9000.errors import ModelError
from yolo9000.network import Network
from yolo9000.options import drop_options
from yolo9000.spec import Convolution, NetworkSpec, Softmax

_LISTED = 100  # ids that the record of a model lists; the trees say the rest

# Of a model's record: ids of classes that learnt beside siblings which are gone.
_APART = "learnt_beside_siblings"


@dataclass(frozen=True)
class Edit:
    """What became of a model's classes; nodes by id, in the order of the tree they belong to.

    source, target: fingerprints of the old and the new tree. removed: nodes of the old tree that are gone.
    added: nodes that only the new tree has. moved: nodes of both under another parent: their rows are the
    same, but are now compared with other siblings'. renamed: (old id, new id). lifted: nodes that had no
    siblings, have some now and took the row of one above. begun: nodes whose rows are new. kept: the number
    of rows that stayed. dropped: settings of the model that hold no more.
    """

    source: str
    target: str
    removed: tuple[str, ...]
    added: tuple[str, ...]
    moved: tuple[str, ...]
    renamed: tuple[tuple[str, str], ...]
    lifted: tuple[str, ...]
    begun: tuple[str, ...]
    kept: int
    dropped: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON-able data."""
        facts = {k: list(v) if isinstance(v, tuple) else v for k, v in vars(self).items()}
        return facts | {"renamed": [list(pair) for pair in self.renamed]}

    def entry(self) -> dict[str, Any]:
        """What a model's record keeps in its list `edits`, newest last: of long lists their length alone."""
        facts = self.to_dict().items()
        return {k: len(v) if isinstance(v, list) and len(v) > _LISTED else v for k, v in facts}


def edit_model(
    net: Network, tree: WordTree, map: np.ndarray | None = None, rows: Iterable[int | str] = ()
) -> tuple[Network, Edit]:
    """The network over another tree, in evaluation mode; the rule for new classes is at the top of the file.

    Args:
        net: a detector or classifier over a tree; it is left as it is.
        tree: the new tree.
        map: (n,) the new index of each of the n nodes of `net.tree`, -1: gone, as the functions of
            wordtree.edit give it. Default: by id.
        rows: nodes of the new tree that get a row though they are not new, where the model stores rows for
            some nodes only.

    Returns:
        The new network (record, class map, defaults carried along) and what was done.

    Raises:
        ModelError: a network without a tree, a tree that shares nothing with it or none of the nodes that it
            has rows for, an impossible map.
        TreeError: an unknown node in `rows`.
    """
    old = net.tree
    if old is None:
        raise ModelError("this model has no tree to edit, only a flat list of classes; train one over a tree")
    class_layer(net.spec)  # refuses networks without rows of their own
    map = _checked_map(carry(old, tree) if map is None else map, old, tree)
    moved = _moved(old, tree, map)
    had = np.asarray(row_nodes(net.spec))
    carried = {node for node in map[had].tolist() if node >= 0}
    if not carried:
        raise ModelError("the model has no row for any node of the new tree: nothing learnt would be left")
    wanted = {tree.index(node) for node in rows} | (carried & set(moved))
    nodes = _nodes_with_rows(net.spec, tree, map, carried, wanted)
    place = {node: k for k, node in enumerate(nodes)}
    donors, apart = _donors(net, had, tree, np.asarray(nodes), map)
    row_of = {node: row for row, node in enumerate(had.tolist())}
    kept_rows = [row_of[donor] for donor in donors.values()]
    kept_places = [place[int(map[node])] for node in donors]
    lifted = sorted(int(map[node]) for node, donor in donors.items() if node != donor)
    spec = _over(net.spec, tree, nodes)
    edited = Network(spec, tree, external=net.external, init=False)
    begun = sorted(set(range(len(nodes))) - set(kept_places))
    _carry_weights(net, edited)
    for ours, theirs in zip(row_parameters(edited), row_parameters(net), strict=True):
        values = view_rows(spec, ours.data)
        values[:, kept_places] = view_rows(net.spec, theirs.data)[:, kept_rows]
        _begin(values, tree, nodes, begun)
    dropped = _describe(net, edited, old, tree, map, same_rows=not (begun or lifted))
    done = Edit(
        source=old.fingerprint,
        target=tree.fingerprint,
        removed=tuple(old.ids[k] for k in np.flatnonzero(map < 0)),
        added=tuple(tree.ids[k] for k in np.setdiff1d(np.arange(len(tree)), map)),
        moved=tuple(tree.ids[k] for k in moved),
        renamed=tuple(
            (node, tree.ids[k])
            for node, k in zip(old.ids, map.tolist(), strict=True)
            if k >= 0 and tree.ids[k] != node
        ),
        lifted=tuple(tree.ids[k] for k in lifted),
        begun=tuple(tree.ids[nodes[k]] for k in begun),
        kept=len(kept_rows) - len(lifted),
        dropped=dropped,
    )
    before = net.record.get("edits")
    edited.record["edits"] = [*(before if isinstance(before, list) else []), done.entry()]
    edited.record.pop(_APART, None)
    if apart:
        edited.record[_APART] = [tree.ids[k] for k in apart]
    return edited.eval(), done


def _checked_map(map: np.ndarray, old: WordTree, tree: WordTree) -> np.ndarray:
    map = np.asarray(map)
    if map.shape != (len(old),) or map.dtype.kind != "i":
        raise ModelError(f"the map has shape {map.shape}; wanted a whole number for each of {len(old)} nodes")
    here = map[map >= 0]
    if (map < -1).any() or (here >= len(tree)).any() or len(np.unique(here)) < len(here):
        raise ModelError(f"the map must give different nodes from 0 to {len(tree) - 1}, or -1: gone")
    if not len(here):
        raise ModelError("the new tree has no node of the model's tree; are their ids of the same kind?")
    return map


def _moved(old: WordTree, tree: WordTree, map: np.ndarray) -> list[int]:
    """Nodes of the new tree, ascending, that stayed but whose parent is another node or new."""
    before = np.full(len(tree), -2)  # the old parent's new index; -2: no such node, -3: it is gone
    stays = map >= 0
    above = old.parents[stays]
    before[map[stays]] = np.where(above < 0, -1, np.where(map[above] < 0, -3, map[above]))
    return np.flatnonzero((before != -2) & (before != tree.parents)).tolist()


def _nodes_with_rows(
    spec: NetworkSpec, tree: WordTree, map: np.ndarray, carried: set[int], wanted: set[int]
) -> Sequence[int]:
    """The nodes of the new tree that have a row, ascending: those that had one, new ones, and what a descent
    needs to get to these or to `wanted`.
    """
    if spec.region is None or spec.region.stored is None:
        return range(len(tree))
    nodes = set(carried)
    for start in (set(range(len(tree))) - set(map.tolist())) | wanted:
        node = start
        while node >= 0 and (node not in nodes or node == start):
            nodes.add(node)
            node = int(tree.parents[node])
    return sorted(nodes)


def _donors(
    net: Network, had: np.ndarray, tree: WordTree, nodes: np.ndarray, map: np.ndarray
) -> tuple[dict[int, int], list[int]]:
    """Old node that stays -> the old node whose row it gets, itself but for those that are lifted; and the
    new tree's nodes, ascending, whose rows learnt beside siblings that are gone.

    had, nodes: nodes of the old and of the new tree that have a row; siblings without one do not compete.
    """
    old = net.tree
    learnt, rivals = _with_siblings(old, had), _with_siblings(tree, nodes)
    before = net.record.get(_APART)
    for node in before if isinstance(before, list) else ():
        if isinstance(node, str) and node in old:
            learnt[old.index(node)] = True
    donors = {}
    for node in had[map[had] >= 0].tolist():
        donor = node
        while rivals[map[node]] and donor >= 0 and not learnt[donor]:
            donor = int(old.parents[donor])
        donors[node] = node if donor < 0 else donor  # nothing that is known tells it from its new siblings
    return donors, sorted(int(map[k]) for k in donors if learnt[k] and not rivals[map[k]])


def _with_siblings(tree: WordTree, nodes: np.ndarray) -> np.ndarray:
    """(n,) bool: which nodes of the tree are among `nodes` together with a sibling."""
    group = tree.group_of[nodes]
    found = np.zeros(len(tree), dtype=bool)
    found[nodes] = np.bincount(group)[group] > 1
    return found


def _over(spec: NetworkSpec, tree: WordTree, nodes: Sequence[int]) -> NetworkSpec:
    """The same network with rows for these nodes of another tree."""
    layers = list(spec.layers)
    i = class_layer(spec)
    if isinstance(layers[i], Convolution):
        sets = 1 if spec.region is None else len(spec.region.anchors)
        boxes = 0 if spec.region is None else 5
        layers[i] = replace(layers[i], filters=sets * (boxes + len(tree)))
    if spec.region is not None:  # the files that a cfg names describe the old tree
        stored = None if spec.region.stored is None else tuple(nodes)
        layers[-1] = replace(spec.region, classes=len(tree), stored=stored, tree=None, map=None)
    elif isinstance(layers[-1], Softmax):
        layers[-1] = replace(layers[-1], tree=None)
    return replace(spec, layers=tuple(layers))


def _carry_weights(net: Network, edited: Network) -> None:
    """Everything but class rows, as it is; box channels beside them included. New rows are left unset."""
    theirs, ours = net.state_dict(), edited.state_dict()
    with torch.no_grad():
        for name, value in theirs.items():
            if ours[name].shape == value.shape:
                ours[name].copy_(value)
        if net.spec.region is not None and net.spec.region.features is None:
            anchors = len(net.spec.region.anchors)
            for to, values in zip(row_parameters(edited), row_parameters(net), strict=True):
                boxes = values.unflatten(0, (anchors, -1))[:, :5]  # (A*(5+C), ...) -> (A, 5, ...)
                to.unflatten(0, (anchors, -1))[:, :5] = boxes


def _begin(values: Tensor, tree: WordTree, nodes: Sequence[int], begun: Sequence[int]) -> None:
    """Sets the new ones, `begun`, among the rows (S, K, ...) of `nodes`. Both are ascending, so that a parent
    is set before its children.
    """
    place = {node: k for k, node in enumerate(nodes)}
    new = set(begun)
    starts: dict[int, Tensor | None] = {}  # by sibling group: what new rows in it begin as
    for k in begun:
        node = nodes[k]
        group = int(tree.group_of[node])
        if group not in starts:
            siblings = [place[n] for n in tree.group(group) if n in place and place[n] not in new]
            parent = place.get(int(tree.parents[node]))
            if siblings:  # summed in float64: a mean of thousands in float32 would depend on their order
                starts[group] = values[:, siblings].double().mean(1).to(values.dtype)
            else:
                starts[group] = None if parent is None else values[:, parent].clone()
        start = starts[group]
        values[:, k] = 0 if start is None else start  # a group of roots that are all new


def _describe(
    net: Network, edited: Network, old: WordTree, tree: WordTree, map: np.ndarray, same_rows: bool
) -> tuple[str, ...]:
    """What is known beside the weights, in terms of the new tree; names of what had to be left out."""
    edited.seen, edited.version = net.seen, net.version
    edited.record, edited.defaults = dict(net.record), dict(net.defaults)
    dropped, untrue = [], []
    if net.class_map is not None:
        to = map[net.class_map.cpu().numpy()]
        if (to < 0).any():
            dropped.append("class_map")
            untrue += ["mapped"] if net.defaults.get("mapped") else []
        else:
            edited.class_map = torch.from_numpy(to)
    stays = map >= 0
    same = np.array_equal(map, np.arange(len(tree))) and np.array_equal(old.parents, tree.parents)
    if not (same and same_rows):  # rewards depend on all leaves, and a new row takes from its siblings
        untrue.append("lambdas")
    # A vocabulary is as true without a node; at a cut, what lay below that node would count as another's.
    spoilt = {"level": any, "vocabulary": all}
    before, after = old.depths[stays], tree.depths[map[stays]]
    if (before != after).any():
        untrue.append("temperatures")  # one for each depth
        level = net.defaults.get("level")
        if isinstance(level, int) and (np.minimum(before, after) <= level)[before != after].any():
            untrue.append("level")
    for key, lost in spoilt.items():
        listed = net.defaults.get(key)
        named = isinstance(listed, str) and old.fingerprint != tree.fingerprint  # "coco", maybe not all there
        if named or isinstance(listed, list | tuple):
            try:
                to = map[list(resolve(old, listed))].tolist()
            except ValueError as error:
                raise ModelError(f"the model's default {key}: {error}") from None
            edited.defaults[key] = [tree.ids[k] for k in to if k >= 0]
            untrue += [key] if lost(k < 0 for k in to) else []
    dropped += drop_options(edited.defaults, untrue)
    taught = net.record.get("nodes")
    if isinstance(taught, dict):
        edited.record["nodes"] = {
            kind: sorted(int(map[k]) for k in known if 0 <= k < len(map) and map[k] >= 0)
            for kind, known in taught.items()
        }
    return tuple(dropped)
