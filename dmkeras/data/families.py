"""`families`: 64 px pictures of one to three things whose classes are leaves of a tree.

    image    float32 [size, size, 3]   in [0, 1]
    boxes    float32 [n, 4]        tight around the whole thing; a later one may hide less than a tenth of its own box
    classes  int32   [n]           leaves, as `class_names` numbers them

Three kinds of things, `things`:

    textures   rendered: squares, discs, triangles and crosses; each plain, hollow, striped or chequered. 16 leaves;
               their family is the texture.
    colours    the same outlines, plain; 16 leaves whose family is a quarter of the circle of hues.
    garments   real: the pictures of Fashion-MNIST and MNIST (read through TFDS), in a colour each, pasted onto rendered
               ground. 20 leaves: tops, footwear, bag, trousers and dress, and ten digits. Training pictures hold
               training items alone, held-out ones test items alone.

`hypernyms` tells the tree as paths, root first. `classes=(...)`: pictures of these leaves alone, for example of those
that have boxes; `apart=n`: of n things of n families. Splits: train 9000 pictures of seed 1, validation 400 of seed 2,
test 1000 of seed 3; a set of other classes, or apart, is another stream. A split is one stream of NumPy's
`default_rng`, as in simple_shapes.
"""

import colorsys
import functools

import numpy as np
import tensorflow as tf

from dmkeras.data import load as load_set
from dmkeras.data import rendering

SIZE = 64
SPLITS = {"train": (1, 9000), "validation": (2, 400), "test": (3, 1000)}  # seed, pictures
THINGS = ("textures", "colours", "garments")
NOISE = 0.04  # standard deviation of the ground
COLOURS = ("red", "green", "cyan", "violet")  # a quarter of the circle of hues each
TEXTURES, OUTLINES = ("plain", "hollow", "striped", "chequered"), ("square", "disc", "triangle", "cross")
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
GARMENTS = {  # leaf: the nodes above it, nearest last
    "t-shirt": ("garment", "top"),
    "trousers": ("garment",),
    "pullover": ("garment", "top"),
    "dress": ("garment",),
    "coat": ("garment", "top"),
    "sandal": ("footwear",),
    "shirt": ("garment", "top"),
    "sneaker": ("footwear",),
    "bag": (),
    "boot": ("footwear",),
} | dict.fromkeys(DIGITS, ("digit",))


def hypernyms(*, things="textures"):
    """{leaf: [its path]}, names from a root to the leaf."""
    check_things(things)
    parents = COLOURS if things == "colours" else TEXTURES
    rendered = {f"{parent} {outline}": (parent,) for parent in parents for outline in OUTLINES}
    return {leaf: [(*above, leaf)] for leaf, above in (GARMENTS if things == "garments" else rendered).items()}


def class_names(*, things="textures"):
    return list(hypernyms(things=things))


def half(*, things="textures"):
    """Every other leaf of each family, in turns the first or the second: those that have boxes in training."""
    kin, chosen = {}, []
    for leaf, ((*above, _),) in hypernyms(things=things).items():
        kin.setdefault(tuple(above), []).append(leaf)
    for i, leaves in enumerate(kin.values()):
        chosen += leaves[i % 2 :: 2]
    return sorted(chosen, key=class_names(things=things).index)


def check_things(things):
    if things not in THINGS:
        raise ValueError(f"families: things is {things!r}, but must be one of {', '.join(THINGS)}")


def load(split, *, data_dir=None, download=False, things="textures", classes=None, count=None, size=SIZE, apart=None):
    """The first `count` pictures (by default all) of one split, of `classes` (by default all leaves) alone.

    `data_dir` and `download` are those of Fashion-MNIST and MNIST. With `apart` each picture holds so many things, of
    as many families, which are the trees below the roots.

    Raises ValueError for an unknown split, things or class, `count` < 1, `apart` beyond the number of families, or a
    size that is out of range, TypeError for one of them that is no integer.
    """
    rendering.check_split("families", split)
    seed, everything = SPLITS[split]
    count, paths = everything if count is None else count, hypernyms(things=things)
    names = list(paths)
    rendering.check("families", count=count, size=size)
    wrong = sorted(set(classes or ()) - set(names))
    if wrong or (classes is not None and not len(classes)):
        raise ValueError(f"families: expected classes among {', '.join(names)}, received {wrong or classes}")
    chosen, kin = sorted(names.index(name) for name in classes or names), {}
    for leaf in chosen:
        kin.setdefault(paths[names[leaf]][0][0], []).append(leaf)
    if apart is not None and apart not in range(1, len(kin) + 1):
        raise ValueError(f"families: apart is {apart!r}, but must be 1 to {len(kin)} of {', '.join(kin)}")
    among, stream = ([chosen], ()) if apart is None else (list(kin.values()), (1000 + apart,))
    signature = {
        "image": tf.TensorSpec([size, size, 3], tf.float32),
        "boxes": tf.TensorSpec([None, 4], tf.float32),
        "classes": tf.TensorSpec([None], tf.int32),
    }
    draw = {"textures": _textured, "colours": _coloured}.get(things) or _pasted(split != "train", data_dir, download)

    def records():
        rng, found = np.random.default_rng([seed, *chosen, *stream]), 0
        while found < count:
            image, boxes, kinds = _picture(rng, draw, among, apart, size)
            if apart not in (None, len(kinds)):
                continue  # there was no place for one
            found += 1
            yield {"image": image, "boxes": boxes, "classes": kinds}

    dataset = tf.data.Dataset.from_generator(records, output_signature=signature)
    return dataset.apply(tf.data.experimental.assert_cardinality(count))


def named(records, leaves):
    """{"image", "label"} of the records that hold one of `leaves`, whole numbers: the first of them is the label."""
    leaves = tf.constant(leaves, tf.int32)
    which = lambda record: tf.reduce_any(record["classes"][:, None] == leaves, -1)
    records = records.filter(lambda record: tf.reduce_any(which(record)))
    return records.map(lambda record: {"image": record["image"], "label": record["classes"][which(record)][0]})


def _picture(rng, draw, kin, apart, size):
    """One picture, of things of the first of `kin` or of `apart` of them; the order of the draws fixes the set."""
    image = (rng.uniform(0.15, 0.85, 3) + rng.normal(0, NOISE, (size, size, 3))).astype("float32")
    boxes, classes = [], []
    for family in rng.permutation(len(kin))[:apart] if apart else [0] * rng.integers(1, 4):
        side = int(rng.integers(round(0.3 * size), round(0.5 * size) + 1))
        kind = kin[family][rng.integers(len(kin[family]))]
        paint, cover = draw(rng, kind, side)  # [side, side, 3], [side, side] in [0, 1]
        rows, columns = (np.flatnonzero((cover > 0.5).any(axis)) for axis in (1, 0))
        paint, cover = (a[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] for a in (paint, cover))
        place = _free_place(rng, cover.shape, size, boxes)
        if place is None:
            continue
        x, y = place
        region = image[y : y + cover.shape[0], x : x + cover.shape[1]]
        region += (paint - region) * cover[..., None]
        boxes.append((x, y, x + cover.shape[1], y + cover.shape[0]))
        classes.append(kind)
    return np.clip(image, 0, 1), np.array(boxes, "float32").reshape(-1, 4), np.array(classes, "int32")


def _free_place(rng, shape, size, boxes):
    """x, y of a box of `shape` that shares less than a tenth of its area with each of `boxes`; None after 20 trials."""
    height, width = shape
    for _ in range(20):
        x, y = rng.integers(0, size - width + 1), rng.integers(0, size - height + 1)
        shared = [
            max(0, min(x + width, right) - max(x, left)) * max(0, min(y + height, bottom) - max(y, top))
            for left, top, right, bottom in boxes
        ]
        if all(area < 0.1 * width * height for area in shared):
            return x, y
    return None


def _colours(rng):
    """Two colours, far apart."""
    first = rng.uniform(0, 1, 3)
    return first, np.where(first > 0.5, first - rng.uniform(0.3, 0.5, 3), first + rng.uniform(0.3, 0.5, 3))


# --- rendered things ------------------------------------------------------------------------------------------------


def _textured(rng, kind, side):
    texture, outline = (names[place] for names, place in zip((TEXTURES, OUTLINES), divmod(kind, len(OUTLINES))))
    u, v = _grid(rng, side)
    first, second = _colours(rng)
    cover, other = _inside(outline, u, v), np.zeros((side, side), bool)
    period, phase, upright = rng.uniform(5, 8), rng.uniform(0, 1), rng.integers(2)
    odd = np.floor(2 * (np.arange(side) / period + phase)).astype(int) % 2 == 1
    if texture == "hollow":
        cover &= ~_inside(outline, 1.5 * u, 1.5 * v, 0.24)
    elif texture == "striped":
        other |= odd[:, None] if upright else odd[None, :]
    elif texture == "chequered":
        other |= odd[:, None] ^ odd[None, :]
    paint = np.where(other[..., None], second, first) + rng.normal(0, NOISE / 2, (side, side, 3))
    return paint.astype("float32"), cover.astype("float32")


def _coloured(rng, kind, side):
    colour, outline = divmod(kind, len(OUTLINES))
    u, v = _grid(rng, side)
    hue = (colour + rng.uniform(-0.3, 0.3)) / len(COLOURS)
    paint = colorsys.hsv_to_rgb(hue % 1, *rng.uniform(0.5, 1, 2)) + rng.normal(0, NOISE / 2, (side, side, 3))
    return paint.astype("float32"), _inside(OUTLINES[outline], u, v).astype("float32")


def _grid(rng, side):
    """u [1, side], v [side, 1]: places in a thing as high as the picture and at most as wide, from -1 to 1."""
    width = side * rng.uniform(0.75, 1)
    u = ((np.arange(side) + 0.5 - side / 2) / (width / 2))[None, :]
    return u, ((np.arange(side) + 0.5 - side / 2) / (side / 2))[:, None]


def _inside(outline, u, v, arm=0.36):
    """bool [side, side]: the outline that fills [-1, 1] x [-1, 1]; arm: half the width of a cross's."""
    if outline == "disc":
        return u**2 + v**2 <= 1
    square = (np.abs(u) <= 1) & (np.abs(v) <= 1)
    if outline == "triangle":
        return square & (np.abs(u) <= (v + 1) / 2)
    return square & ((np.abs(u) <= arm) | (np.abs(v) <= arm)) if outline == "cross" else square


# --- real things ----------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=2)
def _items(held_out, data_dir, download):
    """uint8 [28, 28] pictures of each of 20 classes."""
    found = []
    for name in ("fashion_mnist", "mnist"):
        records = load_set(name, "test" if held_out else "train", data_dir=data_dir, download=download)
        (batch,) = records.batch(100000).as_numpy_iterator()
        found += [batch["image"][batch["label"] == label] for label in range(10)]
    return [np.uint8(255 * pictures[..., 0]) for pictures in found]


def _pasted(held_out, data_dir, download):
    items = _items(held_out, data_dir, download)

    def draw(rng, kind, side):
        item = items[kind][rng.integers(len(items[kind]))].astype("float32") / 255
        place = (np.arange(side) + 0.5) * 28 / side - 0.5  # bilinear
        low = np.clip(np.floor(place).astype(int), 0, 26)
        share = np.clip(place - low, 0, 1).astype("float32")
        item = item[low] * (1 - share)[:, None] + item[low + 1] * share[:, None]
        item = item[:, low] * (1 - share) + item[:, low + 1] * share
        dark, bright = _colours(rng)
        paint = dark + (bright - dark) * item[..., None]
        return paint.astype("float32"), np.clip(item * 6, 0, 1)

    return draw
