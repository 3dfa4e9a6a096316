"""What the classes of a network are called: names files (those of data sets are data_prep's), and the tree
(of one group, for a flat list) behind any network."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from data_prep.classnames import read_class_names
from data_prep.errors import DataError
from wordtree import TreeError, WordTree, class_map
from yolo9000.errors import ModelError

if TYPE_CHECKING:
    from yolo9000.network import Network

# Lists that need no file: the data sets' own class names, in their order.
KNOWN_LISTS = ("voc", "coco", "det", "ilsvrc")

# Far above any names file: 21,842 ImageNet names are 450 kB.
_LARGEST_FILE = 1 << 26


def read_names(path: str | Path, classes: int) -> tuple[str, ...]:
    """The first `classes` lines of a names file; or of the list "voc", "coco", "det" or "ilsvrc", if there is
    no such file.

    Longer files are usual (Darknet's imagenet list has 21,842 names, of which a network uses the first
    thousand). A Darknet .data file or a data.yaml gives the names of its data set, which are just `classes`.
    Raises ModelError for a file that is missing, too short, not UTF-8, or with an empty line among those
    used.
    """
    path = Path(path)
    if path.suffix.lower() in (".data", ".yaml", ".yml"):
        try:
            described = tuple(read_class_names(path))
        except DataError as error:
            raise ModelError(str(error)) from error
        if len(described) != classes:
            raise ModelError(f"{path}: {len(described)} names, the network has {classes} classes")
        return described
    known = str(path).lower()
    if known in KNOWN_LISTS and not path.exists():
        lines = [name for name, _ in class_map(known)]
    else:
        try:
            if path.stat().st_size > _LARGEST_FILE:
                raise ModelError(f"{path}: {path.stat().st_size:,} bytes; this is no list of names")
            lines = path.read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise ModelError(f"{path}: no names there ({error.strerror or error})") from error
        except ValueError as error:
            raise ModelError(f"{path}: not a list of names in UTF-8 ({error})") from error
    if len(lines) < classes:
        raise ModelError(f"{path}: {len(lines)} names, the network has {classes} classes")
    names = tuple(line.strip() for line in lines[:classes])
    if "" in names:
        raise ModelError(f"{path}:{names.index('') + 1}: an empty line where a name is wanted")
    return names


def tree_of(net: "Network", names: Sequence[str] | str | Path | None = None) -> WordTree:
    """The tree of a network's classes, with `names` (a sequence, or what read_names takes) as display names
    if given.

    A network without a tree gets one group of roots; ids are then the names, or "<name> (<index>)" for names
    that repeat. Without any names a class is called "class <index>". Raises ModelError if their number is not
    the network's.
    """
    if names is None:
        names = net.names
    elif isinstance(names, str | Path):
        names = read_names(names, net.classes)
    if names is not None and len(names) != net.classes:
        raise ModelError(f"{len(names)} names for {net.classes} classes")
    if net.tree is not None:
        tree = net.tree
        return tree if names is None else WordTree(tree.ids, tree.parents, names, tree.glosses)
    names = tuple(names) if names is not None else tuple(f"class {k}" for k in range(net.classes))
    seen: dict[str, int] = {}
    for name in names:
        seen[name] = seen.get(name, 0) + 1
    ids = [name if seen[name] == 1 else f"{name} ({k})" for k, name in enumerate(names)]
    try:
        return WordTree.flat(names, ids)
    except TreeError as error:
        raise ModelError(f"the classes cannot be called so: {error}") from error
