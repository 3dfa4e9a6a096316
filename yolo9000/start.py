"""Where a run's network comes from: presets, model files, checkpoints, Darknet files; which tree; which nodes
get class rows. No training.
"""

import difflib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wordtree import TreeError, WordTree
from wordtree.edit import prune
from yolo9000.checkpoint import load_checkpoint
from yolo9000.classrows import row_nodes, row_parameters, view_rows
from yolo9000.config import ModelConfig
from yolo9000.distill import class_branch, class_labels, copy_class_rows
from yolo9000.errors import ModelError, TrainingError
from yolo9000.network import Network
from yolo9000.parts import Samples, by_name, label_map
from yolo9000.spec import AveragePool, Convolution, NetworkSpec, Reorg, RoiAverage, Route
from yolo9000.twin import add_box_twin, add_twin, copy_twin


def build_network(
    config: ModelConfig, stores: Sequence[Samples]
) -> tuple[Network, WordTree | None, list[np.ndarray | None]]:
    """The network to train, its tree, and for each store the map of its labels to the network's classes (None
    = the same).

    Raises TrainingError, ModelError or TreeError."""
    named = nodes_named(stores)  # ids of all nodes that the data names
    if config.preset:
        tree = choose_tree(config.tree, stores, named)
        known = class_labels(config.known) if config.known else []
        net = _from_preset(config, tree, named, known)
        if config.trunk:
            source = load_any(config.trunk)
            copy_trunk(source, net)
            if config.trunk_rows:
                copy_tree_rows(source, net)
            if known:
                copy_class_rows(source, [tree.index(wnid) for wnid in known], net, tree)
    else:
        net = (
            load_any(config.start)
            if config.start
            else load_any(f"{config.cfg} {config.weights}", config.data_root)
        )
        tree = net.tree
        if config.tree:
            wanted = choose_tree(config.tree, stores, named)
            if tree is not None and wanted.fingerprint != tree.fingerprint:
                raise TrainingError(
                    f"model.tree = {config.tree!r} is another tree than that of the network to start from; "
                    "carry it over first (yolo9000 edit --tree), or leave model.tree out"
                )
            tree = tree or attach(net, wanted, config.tree)
        if config.known:
            if tree is None:
                raise TrainingError("model.known wants a network over a tree; model.start has none")
            known = [tree.index(wnid) for wnid in class_labels(config.known)]
            copy_class_rows(load_any(config.trunk), known, net, tree, keep=True)
    if config.follow:
        net = follow_boxes(net, config.follow)
    if config.twin:
        net = add_twin(net, config.twin)
    if config.box_twin:
        net = add_box_twin(net)
    if config.fold:
        net = net.fuse(config.freeze)
    maps = []
    for store in stores:
        if tree is None:
            maps.append(by_name(net.names, net.classes, store.tree.ids))
        else:
            maps.append(label_map(store.tree.ids, tree.ids))
    if tree is not None:
        if len(tree) != net.classes:
            raise TrainingError(f"the network has {net.classes} classes, its tree {len(tree)} nodes")
        missing = sorted(set(named) - set(tree.ids))
        if missing:
            raise TrainingError(
                f"{len(missing)} labels of the data are not in the network's tree: {', '.join(missing[:8])}"
                + (" ..." if len(missing) > 8 else "")
            )
        rows = set(row_nodes(net.spec))
        missing = [wnid for wnid in sorted(set(named)) if tree.index(wnid) not in rows]
        if missing:
            raise TrainingError(
                f"{len(missing)} labels of the data have no class row in the network, so nothing would be "
                f"learnt of them: {', '.join(missing[:8])}{' ...' if len(missing) > 8 else ''}; "
                f"give each one: yolo9000 edit --row {missing[0]}"
            )
    return net, tree, maps


def attach(net: Network, tree: WordTree, name: str) -> WordTree:
    """Gives a tree to a network without one, and returns it; its nodes are the network's classes, in order.
    name: what model.tree says. Raises TrainingError where the network's classes have names and the nodes
    others, or another order.
    """
    names = net.names or ()
    if set(names) & {*tree.names, *tree.ids} and tuple(names) not in (tree.names, tree.ids):
        raise TrainingError(
            f"model.tree = {name!r}: its nodes are not the classes of the network to start from, one by one "
            "in their order; leave it out, and the data's classes are found by their names"
        )
    net.tree, net.names = tree, None  # a tree carries its own names
    return tree


def nodes_named(stores: Sequence[Samples]) -> list[str]:
    """Ids of the nodes that any store has a label of, in the order of the stores' trees, each once."""
    named: dict[str, None] = {}
    for store in stores:
        found = [store.labels_of(i) for i in range(len(store))]
        for node in np.unique(np.concatenate(found)) if found else ():
            named[store.tree.ids[int(node)]] = None
    return list(named)


def choose_tree(name: str, stores: Sequence[Samples], named: Sequence[str]) -> WordTree:
    """The tree that a configuration names: "" the data's own, "named" of it the nodes on the paths of what
    the data names, "default", "flat" (the classes the data names) or a file.
    """
    if name == "":
        trees = {store.tree.fingerprint: store.tree for store in stores}
        if len(trees) > 1:
            raise TrainingError(
                "the data files have labels of different trees; name the network's with model.tree"
            )
        return next(iter(trees.values()))
    if name == "named":
        tree = choose_tree("", stores, named)
        kept = set(stored_nodes(tree, named))
        return prune(tree, [node for node in range(len(tree)) if node not in kept]).tree
    if name == "default":
        return WordTree.default()
    if name == "flat":
        names = {i: n for store in stores for i, n in zip(store.tree.ids, store.tree.names, strict=True)}
        return WordTree.flat([names[i] for i in named], list(named))
    try:
        return WordTree.load(Path(name).absolute())  # not from the configuration's folder on: told in full
    except TreeError as error:
        raise TrainingError(f"model.tree: {error}") from None


def stored_nodes(tree: WordTree, named: Sequence[str]) -> tuple[int, ...]:
    """The nodes on the paths of these ids, ascending."""
    marked: set[int] = set()
    for wnid in named:
        node = tree.index(wnid)
        while node >= 0 and node not in marked:
            marked.add(node)
            node = int(tree.parents[node])
    return tuple(sorted(marked))


def follow_boxes(net: Network, least: int) -> Network:
    """A copy of a detector of presets.tiny9000's kind whose windows for names follow its boxes: instead of
    the average over k x k cells about each one that over its surest box, `least` cells a side at least
    (layers.RoiAverage). Of two experts (yolo9000.twin) those of the first, which follow the first's boxes.
    Raises TrainingError for another kind of network.
    """
    averaged, _ = class_branch(net)
    layers, region = list(net.spec.layers), net.spec.region
    if not isinstance(layers[averaged], AveragePool) or region is None or region.boxes is None:
        raise TrainingError("model.follow: wanted a detector with names from windows of a fixed size")
    layers[averaged] = RoiAverage(_first_boxes(net), least)
    copy = Network(replace(net.spec, layers=tuple(layers)), net.tree, external=net.external, init=False)
    copy.load_state_dict(net.state_dict())
    return copy.carry(net).eval()


def _first_boxes(net: Network) -> int:
    """The layer of raw boxes; with two experts for boxes that of the first, which stays in place."""
    boxes = net.spec.region.boxes
    own = net.spec.layers.index(net.spec.layers[boxes])
    if own != boxes:
        first, both = net.layers[own].conv, net.layers[boxes].conv
        same = torch.equal(first.weight, both.weight[:, : first.in_channels])
        if not (same and torch.equal(first.bias, both.bias)):
            raise TrainingError("model.follow: the first expert's boxes have learnt since it got its twin")
    return own


def load_any(name: str, data_root: str = "") -> Network:
    """A network from a model file, a checkpoint, a run's folder, or "x.cfg x.weights" (or a .cfg alone:
    random weights).
    """
    words = name.split()
    if words and words[0].endswith(".cfg"):
        from yolo9000 import darknet

        return darknet.load(*words, data_root=data_root or None)
    from yolo9000.modelfile import load_model, model_path

    path = model_path(name)
    if not path.exists():
        raise ModelError(f"{name}: no such file or folder")
    if path.is_dir() or path.suffix == ".pt":
        return network_from_checkpoint(load_checkpoint(path))
    return load_model(path)


def network_from_checkpoint(state: dict[str, Any]) -> Network:
    """The network of a checkpoint, with its averaged weights where it has them, in evaluation mode."""
    tree = WordTree.from_dict(state["tree"]) if state["tree"] else None
    net = Network(NetworkSpec.from_dict(state["spec"]), tree, init=False)
    values = dict(state["net"])
    if state["average"]:
        values.update(state["average"]["values"])
    net.load_state_dict(values)
    net.seen = state.get("seen", state["batch"] * state["config"]["batch"])
    net.names, net.defaults = state.get("names"), state.get("defaults", {})
    net.class_map = state.get("class_map")
    return net.eval()


def copy_trunk(source: Network, net: Network) -> int:
    """Copies weights of the first layers, as far as both networks agree, and to the twins of these; the
    number of the first. TrainingError where none does, or a twin's shape is another.
    """
    count = 0
    for ours, theirs, a, b in zip(net.layers, source.layers, net.spec, source.spec, strict=False):
        state = theirs.state_dict()
        shapes = {key: value.shape for key, value in ours.state_dict().items()}
        if a != b or shapes != {key: value.shape for key, value in state.items()}:
            break
        ours.load_state_dict(state)
        count += 1
    if not count:
        raise TrainingError("model.trunk: not even the first layer of that network fits this one")
    for i, layer in enumerate(net.spec):
        if isinstance(layer, Convolution) and layer.twin_of is not None and layer.twin_of < count:
            copy_twin(i, net.layers[i], net.layers[layer.twin_of])
    return count


def copy_tree_rows(source: Network, net: Network) -> int:
    """Class rows of a classifier on a tree to every anchor of a detector, node by node as their ids say
    (paper, section 4: YOLO9000 starts from its classifier's). Others keep what they have. Returns how many.

    Raises TrainingError where the two do not fit.
    """
    off = "or go without, with model.trunk_rows = false"
    if source.tree is None or net.tree is None or source.spec.softmax is None:
        listed = source.tree is None and source.spec.softmax is not None and hasattr(net.layers[-1], "rows")
        more = ", and name the ids of its classes with model.known" if listed else ""
        raise TrainingError(f"model.trunk_rows: the trunk must be a classifier on a tree; {off}{more}")
    try:
        given, taken = _class_rows(source), _class_rows(net)
    except ModelError as error:
        raise TrainingError(f"model.trunk_rows: {error}; {off}") from None
    if given[0].shape[2] != taken[0].shape[2]:
        raise TrainingError(
            f"model.trunk_rows: the classifier's rows take {given[0].shape[2]} channels, the detector's "
            f"{taken[0].shape[2]}; {off}"
        )
    place = {source.tree.ids[node]: k for k, node in enumerate(row_nodes(source.spec))}
    ours = [k for k, node in enumerate(row_nodes(net.spec)) if net.tree.ids[node] in place]
    theirs = [place[net.tree.ids[node]] for node in row_nodes(net.spec) if net.tree.ids[node] in place]
    if not ours:
        raise TrainingError(f"model.trunk_rows: no node of the detector's is one of the classifier's; {off}")
    with torch.no_grad():
        for theirs_all, ours_all in zip(given, taken, strict=True):
            ours_all[:, ours] = theirs_all[:, theirs]  # the same to each of S sets of rows
    return len(ours)


def _class_rows(net: Network) -> tuple[torch.Tensor, torch.Tensor]:
    """Views of the class rows (S, K, D) and their biases (S, K)."""
    weight, bias = (view_rows(net.spec, values.data) for values in row_parameters(net))
    return weight.flatten(2), bias  # (S, K, D, 1, 1) -> (S, K, D)


def own_rows(spec: NetworkSpec, stored: Sequence[int] | None, shared: bool, neck: int = 0) -> NetworkSpec:
    """A detector in Darknet's form with the class channels of its last convolution taken out into class rows.

    The same network where all classes are stored and anchors share nothing; `stored`: the nodes that have a
    row; `shared`: one set of rows for all anchors; `neck`: channels of two 3x3 convolutions before the boxes
    alone, which see a layer of twice the resolution, too (paper, section 2: pass-through), 0 for none. Raises
    TrainingError for a network of another form, and where no layer can be passed through.
    """
    region, last = spec.region, len(spec) - 2
    conv = spec.layers[last] if last >= 0 else None
    if region is None or region.boxes is not None or not isinstance(conv, Convolution) or conv.size != 1:
        raise TrainingError("class rows can be taken out of a detector that ends in a 1x1 convolution only")
    source = spec.inputs(last)[0]
    boxes = replace(conv, filters=5 * len(region.anchors))
    layers = [*spec.layers[:-2]]
    if neck:
        fine = spec.last_of_stride(spec.outputs[source].stride / 2)
        if fine is None:
            raise TrainingError("model.neck: no layer of the network has twice the resolution of its last")
        layers += [Route((fine,)), Convolution(max(1, neck // 4), 1), Reorg(2, "space_to_depth")]
        layers += [Route((last + 2, source)), Convolution(neck, 3), Convolution(neck, 3)]
        boxes = replace(boxes, start="boxes")
    nodes = None if stored is None else tuple(stored)
    rows = replace(region, boxes=len(layers), features=source, stored=nodes, shared_rows=shared)
    return replace(spec, layers=(*layers, boxes, rows))


def _from_preset(config: ModelConfig, tree: WordTree, named: Sequence[str], known: Sequence[str]) -> Network:
    """Calls the preset with the configuration's arguments and, where it has such parameters, with tree,
    classes and stored nodes."""
    preset = _preset(config.preset)
    parameters = inspect.signature(preset).parameters
    arguments = dict(config.arguments)
    for key in arguments:
        if key not in parameters:
            near = difflib.get_close_matches(key, parameters, n=2)
            hint = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(parameters)}"
            raise TrainingError(f"model.arguments: the preset {config.preset} has no argument {key}; {hint}")
    stored = stored_nodes(tree, [*named, *known]) if config.stored == "labels" else None
    given = {"tree": tree, "classes": len(tree), "num_classes": len(tree)}
    given |= {"stored": stored, "shared_rows": config.shared_rows}
    if known:
        given["known"] = tuple(tree.index(wnid) for wnid in known)
    for key, value in given.items():
        if key in parameters and key not in arguments:
            arguments[key] = value
    try:
        made = preset(**arguments)
    except (TypeError, ValueError, OverflowError) as error:
        raise TrainingError(f"model.arguments of the preset {config.preset}: {error}") from None
    if config.neck and (made.region is None or made.region.boxes is not None):
        raise TrainingError(f"model.neck is for a detector in Darknet's form, not for {config.preset}")
    taken_out = stored is not None or config.shared_rows or config.neck
    if made.region is not None and made.region.boxes is None and taken_out:
        made = own_rows(made, stored, config.shared_rows, config.neck)
    elif made.region is None and stored is not None:
        raise TrainingError(
            'model.stored = "labels" is for detectors; a classifier has a row for every class'
        )
    return Network(made, tree)


def _preset(name: str) -> Callable[..., Any]:
    from yolo9000 import presets

    known = {
        key: value
        for key, value in vars(presets).items()
        if inspect.isfunction(value) and value.__module__ == presets.__name__ and not key.startswith("_")
    }
    if name not in known:
        near = difflib.get_close_matches(name, known, n=2)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known)}"
        raise TrainingError(f"model.preset: no preset {name!r}; {hint}")
    return known[name]
