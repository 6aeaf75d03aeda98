"""`folder:DIR`: the user's own pictures in class folders, DIR/CLASS/... .

    image   float32 [height, width, 3]
    label   int32   []
    name    string  []   the file's path relative to DIR

Splits: DIR/train/CLASS/..., DIR/validation/... (or val, valid) and DIR/test/... where DIR holds such folders and
nothing else; otherwise the fixed split 80/10/10 by the hash of CLASS/FILE (`files.in_split`), and "all". The classes
are the folders of `train`, sorted, or those given by the option `classes`. Order: by path.
"""

import tensorflow as tf

from dmkeras.data import files

SPLITS = ("train", "validation", "test", "all")


def load(place, split, *, data_dir=None, download=False, strict=False, verify=True, classes=None):
    """The pictures of one split. Problems are logged and skipped, or raise BadDataError under `strict`.

    `verify=False` does not decode the files beforehand; `classes` lists the folders to use, in the order of the labels.
    Raises FileNotFoundError without DIR, ValueError for an unknown split or one without a usable picture.
    """
    examples, problems = examine(place, split, data_dir=data_dir, verify=verify, classes=classes)
    files.settle(f"folder:{place}", split, examples, problems, strict)
    root = files.directory(place, data_dir)
    paths = files.paths_tensor([path for path, _ in examples])
    names = files.paths_tensor([path.relative_to(root) for path, _ in examples])
    labels = tf.constant([label for _, label in examples], tf.int32)
    return files.dataset(
        len(examples), lambda i: {"image": files.picture(paths[i]), "label": labels[i], "name": names[i]}
    )


def class_names(place, *, data_dir=None, classes=None):
    root = files.directory(place, data_dir)
    if classes is not None:
        return list(classes)
    return [
        files.nfc(path.name) for path in files.entries(files.split_folders(root).get("train", root)) if path.is_dir()
    ]


def examine(place, split, *, data_dir=None, verify=True, classes=None):
    """([(path, label)], [Problem]) of one split."""
    root = files.directory(place, data_dir)
    folders = files.split_folders(root)
    files.check_split(f"folder:{place}", split, tuple(folders) or SPLITS)
    top = folders.get(split, root)
    names = class_names(place, data_dir=data_dir, classes=classes)
    problems, found = [], []
    for entry in files.entries(top):
        if not entry.is_dir():
            problems.append(files.Problem(files.shown(entry), "lies outside the class folders DIR/CLASS/"))
            continue
        pictures = [p for p in files.walk(entry, problems) if folders or files.in_split(p.relative_to(root), split)]
        name = files.nfc(entry.name)
        if name in names:
            found += [(path, names.index(name)) for path in pictures]
        else:
            reason = f"is of the unknown class {name!r} (the classes are {', '.join(names)})"
            problems += [files.Problem(files.shown(path), reason) for path in pictures]
    sizes = files.verified([path for path, _ in found], decode=verify)
    problems += [files.Problem(files.shown(path), fault) for path, fault in sizes.items() if isinstance(fault, str)]
    return [(path, label) for path, label in found if not isinstance(sizes[path], str)], sorted(problems)
