"""The gallery: what each system of `understanding` shows of the same three photographs, and a page around the pictures.

    python -m benchmarks.gallery --weights PATH                            docs/gallery/*.png and its README.md
    python -m benchmarks.gallery --weights PATH --only deepdream fooling   some of the pictures anew

PATH is of SqueezeNet 1.0's ImageNet weights (.npz or .keras); a file synset_words.txt beside it names the classes. The
photographs are scikit-image's. The lines of Python on the page are those that are run here, and its pictures are drawn
of what they make, from seed 0, in some minutes on two x86-64 cores.
"""

import argparse
import dataclasses
import pathlib
import textwrap

import matplotlib
import numpy as np
import tensorflow as tf

import dmkeras
from dmkeras import figures
from dmkeras.backbones.subjects import subject
from training.fooling import sheet

TILE = 150  # pixels of a picture in wide figures
BRIGHT = 99  # percentile of a map that has the brightest colour; a few outliers would darken the rest
SIGNED = ("input_x_gradient", "integrated", "occlusion")  # red speaks for the class, blue against it

BEGINNING = """\
# Gallery: what does a ConvNet look at?

Every system of [understanding](../../dmkeras/understanding) on the same three photographs of scikit-image, seen by
SqueezeNet 1.0 with its ImageNet weights: an Egyptian cat (chelsea), an espresso (coffee) and a tripod (camera), all
three classified right. One command makes this page, its pictures included:

```sh
python -m benchmarks.gallery --weights squeezenet_v1.0_imagenet.npz
```

All examples begin with these lines, and whatever is said of SqueezeNet can be said of any Keras classifier:

```python
import numpy as np

import dmkeras
from dmkeras.backbones.subjects import subject

known = subject("squeezenet", "squeezenet_v1.0_imagenet.npz")
classifier, images, classes = known.classifier, known.images, known.classes  # [3, 224, 224, 3] in [0, 1], [3]
```
"""


@dataclasses.dataclass(frozen=True)
class Section:
    """One picture of the gallery.

    Attributes:
        title: heading.
        paper: its URL, and how it is called.
        code: lines that make what is shown; they run with `dmkeras`, `known`, `classifier`, `images` and `classes`.
        caption: what is to be seen.
        draw: what the lines made, {name: value} -> uint8 picture.
    """

    title: str
    paper: tuple
    code: str
    caption: str
    draw: object


# --- drawing ----------------------------------------------------------------------------------------------------------


def resized(image, side=TILE):
    """A picture [h, w, C] at side x side."""
    method = "area" if image.shape[0] > side else "nearest"
    return np.clip(tf.image.resize(image, (side, side), method).numpy(), 0, 1)


def coloured(values, signed=False):
    """A map [h, w] as a picture: viridis from its least value, or red and blue on white around zero."""
    highest = max(np.percentile(abs(values) if signed else values, BRIGHT), 1e-12)
    lowest = -highest if signed else values.min()
    share = np.clip((values - lowest) / (highest - lowest), 0, 1)
    return matplotlib.colormaps["RdBu_r" if signed else "viridis"](share)[..., :3]


def rows_of(images, columns, side=TILE, titles=None):
    """The photographs and beside each what belongs to it: columns {label: [3] pictures}."""
    table = {"photograph": images, **columns}
    tiles = [resized(np.asarray(picture), side) for row in zip(*table.values()) for picture in row]
    return figures.grid(tiles, len(table), column_labels=list(table), titles=titles, scale=1)


def below(*pictures):
    """Pictures under one another, at the left."""
    widest = max(picture.shape[1] for picture in pictures)
    white = lambda picture: ((0, 0), (0, widest - picture.shape[1]), (0, 0))
    return np.concatenate([np.pad(picture, white(picture), constant_values=255) for picture in pictures])


def draw_filters(made):
    maps, tiles = made["maps"].numpy(), made["tiles"]
    chosen = np.argsort(-maps.std((1, 2)).mean(0), kind="stable")[:6]  # the filters that tell most places apart
    answers = {f"filter {k}": [coloured(each[..., k]) for each in maps] for k in chosen}
    weights = figures.grid(tiles, 24, scale=4, title=f"the {len(tiles)} filters of conv1, 7x7 pixels; grey is zero")
    return below(weights, rows_of(made["images"], answers, 108))


def draw_feature_space(made):
    from dmkeras.understanding.feature_space import thumbnail_map

    kinds = np.repeat(np.arange(3), len(made["crops"]) // 3)
    return thumbnail_map(made["places"], made["crops"], kinds, side=700, thumbnail=44)


def draw_maximal_patches(made):
    sheets = []
    for layer, found in made["found"].items():
        size, corners = found["patches"].shape[2], found["boxes"]
        whole = (corners[..., 2:] - corners[..., :2] == size).all((1, 2))  # no part of a patch is beyond a border
        units = np.argsort(-found["scores"][:, -1] * whole, kind="stable")[:8]  # those that all photographs excite
        strips = [np.concatenate([resized(patch, 72) for patch in found["patches"][unit]], 1) for unit in units]
        titles, title = [f"unit {unit}" for unit in units], f"{layer}: a unit sees {size}x{size} pixels"
        sheets.append(figures.grid(strips, 4, titles=titles, scale=1, title=title))
    return below(*sheets)


def draw_occlusion(made):
    tiles = []
    for image, drop, kind in zip(made["images"], made["drops"].numpy(), made["classes"]):
        told = {"title": made["known"].names[kind], "units": "mean drop of the logit", "signed": True}
        tiles.append(figures.heat_map(drop, image, **told))
    return figures.grid(tiles, 3, scale=1)


def draw_saliency(made):
    stretch = lambda map: np.clip(0.5 + map / (2 * np.percentile(abs(map), 99.8) + 1e-12), 0, 1)
    return rows_of(made["images"], {layer: [stretch(each) for each in maps] for layer, maps in made["maps"].items()})


def draw_gradient_ascent(made):
    names = [made["known"].names[kind] for kind in made["classes"]]
    tiles = [resized(made["made"][prior]["images"][i].numpy(), 176) for i in range(3) for prior in made["made"]]
    shares = [
        tf.nn.softmax(made["made"][prior]["logits"])[i, made["classes"][i]] for i in range(3) for prior in made["made"]
    ]
    titles = [f"p = {float(share):.2f}" for share in shares]
    return figures.grid(tiles, row_labels=names, column_labels=list(made["made"]), titles=titles, scale=1)


def draw_fooling(made):
    return sheet(made["known"], made["images"], {key: values.numpy() for key, values in made["found"].items()})


def draw_deepdream(made):
    return rows_of(made["images"], {name: list(dreams.numpy()) for name, dreams in made["dreams"].items()}, 132)


def draw_attributions(made):
    columns = {}
    for name, maps in made["maps"].items():
        columns[name.replace("_", " ")] = [coloured(each, name in SIGNED) for each in np.asarray(maps)]
    return rows_of(made["images"], columns, 112)


# --- sections ---------------------------------------------------------------------------------------------------------

SECTIONS = {
    "attributions": Section(
        "All attribution methods side by side",
        ("https://arxiv.org/abs/1312.6034", "Simonyan et al. 2013, the first of them"),
        """
        methods = ["vanilla", "guided", "deconvnet", "smoothgrad", "input_x_gradient", "integrated"]
        reduce = {"input_x_gradient": "sum", "integrated": "sum"}  # which keep their sign
        maps = {}
        for method in methods:
            explain = dmkeras.Saliency(classifier, method, reduce.get(method, "max_abs"))
            maps[method] = explain(images, classes=classes)
        maps["occlusion"] = dmkeras.Occlusion(classifier, window=36, stride=12)(images, classes)
        """,
        """
        The same question, which pixels matter to the class, asked in seven ways. Yellow is much, violet nothing; in
        the last three columns red speaks for the class and blue against it. Every map has a scale of its own.
        Gradients of one picture are noisy, their average over noise (smoothgrad) is less so. Guided gradients draw
        edges. The deconvnet lets nothing but positive gradients through a rectifier: of two of these classes nothing
        is left on the way back, whose maps are zero throughout. Occlusion is coarse, but asks the classifier itself.
        """,
        draw_attributions,
    ),
    "filters": Section(
        "Filters",
        ("https://doi.org/10.1145/3065386", "Krizhevsky et al. 2012"),
        """
        filters = dmkeras.Filters(classifier)  # of the first convolution
        tiles, maps = filters.tiles(), filters(images)  # [96, 7, 7, 3], [3, 109, 109, 96]
        """,
        """
        The weights of the first layer as pictures: edges, gratings, patches of colour. Below, what six of them
        answer to the photographs, those whose answers vary most over a picture.
        """,
        draw_filters,
    ),
    "feature_space": Section(
        "Feature space",
        ("https://doi.org/10.1145/3065386", "Krizhevsky et al. 2012"),
        """
        starts = range(0, 161, 20)
        crops = np.stack([image[y : y + 64, x : x + 64] for image in images for y in starts for x in starts])
        space = dmkeras.FeatureSpace(classifier, "fire9", image_shape=(64, 64, 3))
        places = space.project(crops, "tsne")
        """,
        """
        81 overlapping crops of each photograph (blue frames: cat, orange: espresso, green: tripod), laid out by
        t-SNE of what fire9 makes of them. Crops that show the same kind of thing lie together; the photographs part
        by themselves.
        """,
        draw_feature_space,
    ),
    "maximal_patches": Section(
        "Maximally activated patches",
        ("https://arxiv.org/abs/1311.2524", "Girshick et al. 2014"),
        """
        layers = ["conv1", "fire3", "fire6"]
        found = {layer: dmkeras.MaximalPatches(classifier, layer, k=3).find(images) for layer in layers}
        """,
        """
        What excites a unit most in each of the three photographs, the best first: exactly the pixels that it sees
        there. Eight units of each layer, of those that all photographs excite away from the border.
        """,
        draw_maximal_patches,
    ),
    "occlusion": Section(
        "Occlusion",
        ("https://arxiv.org/abs/1311.2901", "Zeiler and Fergus 2014"),
        """
        drops = dmkeras.Occlusion(classifier, window=36, stride=12)(images, classes)  # [3, 224, 224]
        """,
        """
        A grey square of 36 pixels covers part after part; red is where the class's logit drops most.
        """,
        draw_occlusion,
    ),
    "saliency": Section(
        "Saliency",
        ("https://arxiv.org/abs/1312.6034", "Simonyan et al. 2013"),
        """
        maps = {}
        for layer in ["fire3", "fire5", "fire7", "fire9"]:
            unit = dmkeras.Saliency(classifier, "guided", reduce=None, layer=layer)
            maps[layer] = unit(images).numpy()  # [3, 224, 224, 3]
        """,
        """
        The saliency of classes stands in the first figure. Here are guided gradients of single units of four
        layers, the strongest channel of each picture where it is strongest, around grey: what this unit saw, and
        how much of the picture it sees.
        """,
        draw_saliency,
    ),
    "gradient_ascent": Section(
        "Gradient ascent",
        ("https://arxiv.org/abs/1506.06579", "Yosinski et al. 2015"),
        """
        made = {}
        for prior in ["l2", "yosinski", "jitter_tv"]:
            made[prior] = dmkeras.GradientAscent(classifier, prior=prior).ascend(classes, seed=0)
        """,
        """
        Pictures made from noise to be like the classes of the photographs, which take no part, under three priors;
        above each how probable the classifier finds its class. The last step of Yosinski et al.
        is a blur; the cat is not told after it.
        """,
        draw_gradient_ascent,
    ),
    "fooling": Section(
        "Fooling images",
        ("https://arxiv.org/abs/1312.6199", "Szegedy et al. 2013"),
        """
        fooling = dmkeras.FoolingImage(classifier, rounded=True)
        found = fooling.fool(images, [9, 1, 779])  # an ostrich, a goldfish, a school bus
        """,
        """
        The photograph, its change, enlarged around grey, and the changed photograph, in 8 bits as any PNG file,
        with the best class of both.
        """,
        draw_fooling,
    ),
    "deepdream": Section(
        "DeepDream",
        ("https://arxiv.org/abs/1409.4842", "Szegedy et al. 2014, whose network the first dreams were of"),
        """
        dreams = {}
        for layers in ["fire3", "fire5", "fire7", "fire9"]:
            dreams[layers] = dmkeras.DeepDream(classifier, layers).dream(images, seed=0)
        dreams["fire4 + fire8"] = dmkeras.DeepDream(classifier, {"fire4": 1, "fire8": 2}).dream(images, seed=0)
        """,
        """
        What layers see is written into the photographs, over four octaves: strokes and corners in the early layers,
        eyes and fur later on.
        """,
        draw_deepdream,
    ),
}


def page():
    parts = [BEGINNING]
    for name, section in SECTIONS.items():
        url, called = section.paper
        code = textwrap.dedent(section.code).strip()
        lines = [f"## {section.title}", f"[{called}]({url})", f"```python\n{code}\n```"]
        lines += [f"![{section.title}]({name}.png)", textwrap.fill(" ".join(section.caption.split()), 120)]
        parts.append("\n\n".join(lines) + "\n")
    return "\n".join(parts)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True, help="path of SqueezeNet 1.0's weights")
    parser.add_argument("--out", default="docs/gallery", help="folder of the page")
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), default=list(SECTIONS), help="pictures to make")
    arguments = parser.parse_args()
    known, out = subject("squeezenet", arguments.weights), pathlib.Path(arguments.out)
    given = {"dmkeras": dmkeras, "np": np, "known": known, "classifier": known.classifier}
    for name in arguments.only:
        made = {**given, "images": known.images, "classes": known.classes}
        exec(textwrap.dedent(SECTIONS[name].code), made)
        (out / f"{name}.png").unlink(missing_ok=True)
        print(figures.save(out / f"{name}.png", SECTIONS[name].draw(made)), flush=True)
    (out / "README.md").write_text(page())


if __name__ == "__main__":
    main()
