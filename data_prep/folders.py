"""Folders or tars of pictures, `<class>/<file>`, into records with labels, or without any; never boxes.

Not here: which of several folders around a picture is a class, for that takes the tree (mapping.py).
"""

from data_prep.errors import DataError
from data_prep.pictures import Pictures, TarFolder
from data_prep.record import Category, Record, Records

# A folder of this name holds the pictures of the class around it, as in Tiny ImageNet's n01443537/images.
_NO_CLASS = "images"


def read_folders(pictures: Pictures, classes: frozenset[str] | None = None) -> Records:
    """Records of pictures named `<class>/<file>`: the folder is the class, a WordNet id or any other name. In
    `<a>/<b>/<file>` it is the lowest folder that is known: the category's key is `a/b`, its name `a`, and
    `closer` are the names tried before that, `a/b` and `b`. Folders called `images` below another are none.

    Args:
        pictures: a folder of folders, a tar of folders, or a folder of tars named by class.
        classes: take only what lies in folders of these names (in a folder of tars: in tars); all of them
            must be there.

    Raises:
        DataError: a picture lies outside any class folder, or a wanted class has no pictures.
    """
    # Opening 20,000 tars to take two of them would take minutes.
    names = pictures.names(classes) if isinstance(pictures, TarFolder) else pictures.names()
    records: list[Record] = []
    categories: dict[str, Category] = {}
    absent = set(classes or ())
    for name in names:
        top, *below = name.split("/")[:-1] or [""]
        if not top:
            raise DataError(f"{pictures.path}: {name} lies in no class folder; wanted <class>/<file>")
        folders = [top, *(folder for folder in below if folder.lower() != _NO_CLASS)]
        if classes is not None and classes.isdisjoint(folders):
            continue
        absent.difference_update(folders)
        key = "/".join(folders)
        if key not in categories:
            categories[key] = Category(top, closer=(key, *folders[:0:-1]) if key != top else ())
        records.append(Record(name, image_categories=(key,), boxed=False))
    if absent:
        raise DataError(
            f"{pictures.path}: no pictures of {len(absent)} wanted classes: {', '.join(sorted(absent)[:10])}"
        )
    return Records(tuple(records), categories)


def read_unlabelled(pictures: Pictures) -> Records:
    """Records of all pictures, of which nothing is known."""
    return Records(tuple(Record(name, boxed=False) for name in pictures.names()), {})
