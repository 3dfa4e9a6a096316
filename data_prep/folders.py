"""Folders or tars of pictures, `<class>/<file>`, into records with labels, or without any; never boxes."""

from data_prep.errors import DataError
from data_prep.pictures import Pictures, TarFolder
from data_prep.record import Category, Record, Records


def read_folders(pictures: Pictures, classes: frozenset[str] | None = None) -> Records:
    """Records of pictures named `<class>/<file>`: the first part of the name is the class, a WordNet id or
    any other name.

    Args:
        pictures: a folder of folders, a tar of folders, or a folder of tars named by class.
        classes: take only these classes; all of them must be there.

    Raises:
        DataError: a picture lies outside any class folder, or a wanted class has no pictures.
    """
    # Opening 20,000 tars to take two of them would take minutes.
    names = pictures.names(classes) if isinstance(pictures, TarFolder) else pictures.names()
    records, categories = [], {}
    for name in names:
        key, slash, _ = name.partition("/")
        if not slash:
            raise DataError(f"{pictures.path}: {name} lies in no class folder; wanted <class>/<file>")
        if classes is None or key in classes:
            categories[key] = Category(key)
            records.append(Record(name, image_categories=(key,), boxed=False))
    absent = sorted((classes or frozenset()) - set(categories))
    if absent:
        raise DataError(
            f"{pictures.path}: no pictures of {len(absent)} wanted classes: {', '.join(absent[:10])}"
        )
    return Records(tuple(records), categories)


def read_unlabelled(pictures: Pictures) -> Records:
    """Records of all pictures, of which nothing is known."""
    return Records(tuple(Record(name, boxed=False) for name in pictures.names()), {})
