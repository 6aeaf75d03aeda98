"""What a version says of itself: signatures, tensors with their units, class, configuration and software.

The card is `assets.extra/model_card.json`; a version that another tool wrote has none, and is described from its graph.
No TensorFlow here.
"""

import json
import typing

from dmkeras.serving.curl import curl
from dmkeras.serving.folders import DamagedError

FILE = "assets.extra/model_card.json"
LABELS = "assets.extra/labels.txt"
INIT = "__saved_model_init_op"  # a signature that initialises tables and answers nothing
KEYS = ("name", "class", "created", "parameters", "labels", "software", "signatures", "config")

# The house's units (README, "Units"): a tensor's name says what it holds, in every model.
UNITS = {
    "image": "values in [0, 1]",
    "image/encoded": "a JPEG or PNG file",
    "seed": "any two integers for each row",
    "boxes": "x1, y1, x2, y2 in pixels, x2 and y2 exclusive",
    "proposals": "x1, y1, x2, y2 in pixels, x2 and y2 exclusive",
    "detection_boxes": "ymin, xmin, ymax, xmax in [0, 1] of the picture",
    "detection_scores": "in [0, 1], falling",
    "detection_classes": "index into the labels, from 0",
    "num_detections": "rows that are filled",
    "label": "index into the labels, from 0",
    "probabilities": "in [0, 1], one for each label",
    "logits": "any real number; softmax or sigmoid makes probabilities of them",
    "nll": "nats per image",
    "elbo": "nats per image",
    "kl": "nats per image",
    "log_prob": "nats per image",
    "bits_per_dim": "bits per dimension",
    "angle": "radians",
}


class Tensor(typing.NamedTuple):
    """An input or an output of a signature; `shape` has None for the batch and for sizes that vary.

    A SavedModel of another tool may have scalars, shape (), and tensors of any rank, whose shape is None.
    """

    name: str
    dtype: str
    shape: tuple | None


def sides(shape):
    """A Tensor's shape in words: [B, ?, 3]."""
    if shape is None:
        return "of any shape"
    open_sides = {axis: "B" if axis == 0 else "?" for axis, side in enumerate(shape) if side is None}
    return f"[{', '.join(str(open_sides.get(axis, side)) for axis, side in enumerate(shape))}]"


def unit(name, answered=False):
    """What the numbers of a tensor of this name mean, or None where the house has no unit for it.

    answered: it is an output, whose pictures are PNG files, since the house encodes no others.
    """
    if name.endswith("_bytes"):
        return "a PNG file" if answered else "a JPEG or PNG file"
    return UNITS.get(name) or UNITS.get(name.removesuffix("s"))


def describe(model, signatures, features=None):
    """{signature: ([Tensor] inputs, [Tensor] outputs)} -> the `signatures` of a card.

    `features` are {signature: Tensor} of those that take tf.Examples.
    """
    features = features or {}
    return {
        name: {
            "inputs": [_entry(tensor) for tensor in inputs],
            "outputs": [_entry(tensor, answered=True) for tensor in outputs],
            **({"feature": _entry(features[name])} if name in features else {}),
            "curl": curl(model, name, inputs, outputs, features.get(name)),
        }
        for name, (inputs, outputs) in sorted(
            signatures.items(), key=lambda item: (item[0] != "serving_default", item[0])
        )
    }


def read(folder):
    """The card of a version's folder as a dict; None where there is none. DamagedError if it is not one."""
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{path} is not JSON ({error}); expected the card that the export wrote") from None
    if not isinstance(card, dict) or not set(KEYS) <= set(card):
        raise DamagedError(f"{path} lacks some of {', '.join(KEYS)}; expected the card that the export wrote")
    return card


def text(model, card, line=curl):
    """The card of a model as lines to read. A card without "class" has signatures alone.

    `line` makes the line that asks for a signature, as `curl` does; None: there is none.
    """
    lines = [] if card["signatures"] else ["no signatures: nothing can be asked"]
    if "class" in card:
        software = ", ".join(f"{name} {version}" for name, version in card["software"].items() if version)
        lines.append(f"{card['class']}, {card['parameters']:,} parameters, written {card['created']} ({software})")
    if card.get("labels"):
        shown = ", ".join(card["labels"][:10])
        lines.append(f"{len(card['labels'])} labels: {shown}{', ...' if len(card['labels']) > 10 else ''}")
    lines += _variant(card.get("variant") or {}, card["signatures"])
    for name, signature in card["signatures"].items():
        lines += ["", name]
        feature = _tensor(signature["feature"]) if "feature" in signature else None
        for entry in signature["inputs"]:
            lines.append(_line("in", {**entry, "unit": "serialized tf.Examples of"} if feature else entry))
        lines += [_line("", signature["feature"])] if feature else []
        lines += [_line("out", entry) for entry in signature["outputs"]]
        tensors = [[_tensor(entry) for entry in signature[side]] for side in ("inputs", "outputs")]
        if line is not None:
            lines.append(f"  {line(model, name, *tensors, feature)}")  # under the name that the folder has now
    return "\n".join(lines)


def _variant(variant, signatures):
    """Lines that say what `export` made of a model beside the plain thing."""
    lines = ["frozen: the variables are constants"] if variant.get("frozen") else []
    if variant.get("compute"):
        found = variant["differences"]
        worst = max((number for outputs in found.values() for number in outputs.values()), default=0)
        own = ", ".join(name for name in signatures if name not in found and "feature" not in signatures[name])
        lines.append(
            f"computes in {variant['compute']}, at most {worst:.2%} from the model's own answers on example requests"
            + (f"; in the model's own precision: {own}" if own else "")
        )
    return lines


def _tensor(entry):
    return Tensor(entry["name"], entry["dtype"], None if entry["shape"] is None else tuple(entry["shape"]))


def _entry(tensor, answered=False):
    shape = None if tensor.shape is None else list(tensor.shape)
    return {"name": tensor.name, "dtype": tensor.dtype, "shape": shape, "unit": unit(tensor.name, answered)}


def _line(kind, entry):
    line = f"  {kind:3} {entry['name']:20} {entry['dtype']:7} {sides(entry['shape'])}"
    return f"{line:55} {entry['unit']}" if entry["unit"] else line
