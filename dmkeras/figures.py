"""Pictures of what a model sees and does, as arrays: grids, curves, boxes, skeletons, masks, heat maps and
scatter plots.

Every function returns a uint8 array [H, W, 3]; `save` writes it as a PNG and never overwrites. Pictures given to these
functions are [H, W], [H, W, 1] or [H, W, 3], float in [0, 1] or uint8. Small ones are enlarged by an integer factor
without smoothing, so that a pixel stays a pixel. Wrong shapes, ranges and NaN in pictures raise ValueError.
"""

import functools
import io
import math
import pathlib

import numpy as np

PALETTE = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf")
TILE_SIDE, PICTURE_SIDE, GRID_WIDTH = 72, 384, 1600  # pixels: small pictures grow to the first two, grids to the last
FONT_SIZE, LINE, PAD = 13, 20, 6  # pixels


def save(path, picture):
    """Writes a picture as a PNG file, in folders made as needed, and returns its path; FileExistsError if it exists."""
    from PIL import Image

    path, picture = pathlib.Path(path), np.asarray(picture)
    if path.suffix.lower() != ".png":
        raise ValueError(f"save: received {path}, expected a path that ends in .png")
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
        raise ValueError(f"save: received {picture.dtype} {picture.shape}, expected uint8 [H, W, 3]; see `grid`")
    encoded = io.BytesIO()
    Image.fromarray(picture).save(encoded, format="PNG")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(path, "xb") as file:
            file.write(encoded.getvalue())
    except FileExistsError:
        raise FileExistsError(f"save: {path} exists and is not overwritten; choose another name") from None
    return path


def grid(
    images,
    columns=None,
    *,
    titles=None,
    row_labels=None,
    column_labels=None,
    title=None,
    scale=None,
    gap=4,
    ground="white",
):
    """Pictures in reading order on a ground, white unless told.

    images: [N, H, W, C], [N, H, W] or a list of pictures, also of different sizes.
    columns: pictures a row; default: as `column_labels` or `row_labels` say, or nearly a square.
    titles: N texts, each above its picture.   row_labels, column_labels: at the left and on top.
    scale: integer enlargement; default: small pictures become about 72 pixels.   gap: between pictures, in pixels.
    ground: the colour behind them, as Pillow takes it; a grey one parts pictures with white edges.
    """
    tiles = [_picture(image, "grid") for image in images]
    if not tiles:
        raise ValueError("grid: received no pictures, expected at least one")
    square = math.ceil(len(tiles) / len(row_labels)) if row_labels else math.ceil(math.sqrt(len(tiles)))
    columns = columns or (len(column_labels) if column_labels else square)
    rows = math.ceil(len(tiles) / columns)
    wanted = {
        "titles": (titles, len(tiles)),
        "row_labels": (row_labels, rows),
        "column_labels": (column_labels, columns),
    }
    for name, (texts, count) in wanted.items():
        if texts is not None and len(texts) != count:
            raise ValueError(f"grid: received {len(texts)} {name}, expected {count} ({rows} rows of {columns} columns)")
    height, width = (max(tile.shape[axis] for tile in tiles) for axis in (0, 1))
    scale = scale or max(1, min(round(TILE_SIDE / max(height, width)), GRID_WIDTH // (columns * width)))
    tiles = [_enlarge(tile, scale) for tile in tiles]
    return _sheet(tiles, rows, columns, titles, row_labels, column_labels, title, gap, ground)


def labelled_rows(rows, **options):
    """A grid with one labelled row for each item of `rows`, {label: pictures [N, H, W, C]}; options as in `grid`."""
    lengths = {label: len(images) for label, images in rows.items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"labelled_rows: received rows of {lengths} pictures, expected rows of one length")
    images = [image for images in rows.values() for image in images]
    return grid(images, len(images) // len(rows), row_labels=list(rows), **options)


def curves(series, *, title=None, x_label=None, y_label=None, log_x=False, log_y=False):
    """Lines through points, with a legend when there are several and marks where points are few.

    series: {name: y}, {name: (x, y)} or {name: (x, y, error)}, each [N]; `error` is drawn as a band of +- error
        (the title should say which error). x defaults to 1, 2, ..., N.
    x_label, y_label: the axes with their units, such as "loss [nats per image]".

    Values that cannot be drawn (NaN, infinite, not positive on a logarithmic axis) are skipped; the line goes on.
    """
    figure, axes = _axes(title, x_label, y_label)
    axes.set_xscale("log" if log_x else "linear")
    axes.set_yscale("log" if log_y else "linear")
    for index, (name, points) in enumerate(series.items()):
        x, y, error = _points(name, points)
        keep = np.isfinite(x) & np.isfinite(y) & ((x > 0) | (not log_x)) & ((y > 0) | (not log_y))
        x, y, error, color = x[keep], y[keep], error[keep], PALETTE[index % len(PALETTE)]
        axes.plot(x, y, color=color, label=name, linewidth=1.6, markersize=4, marker="o" if len(x) <= 20 else None)
        if error.any():
            low = np.where(y - error > 0, y - error, y) if log_y else y - error
            axes.fill_between(x, low, y + error, color=color, alpha=0.2, linewidth=0)
    ticks = np.unique(np.concatenate([line.get_xdata() for line in axes.lines] or [[]]))
    if log_x and 0 < len(ticks) <= 8:
        ticks = ticks[np.append(ticks[1:] > 1.4 * ticks[:-1], True)]  # closer texts would run into one another
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
    axes.grid(color="0.9", linewidth=0.8)
    if len(series) > 1:
        axes.legend(frameon=False, fontsize=9)
    return _render(figure)


def learning_curves(log, name, *, units=None, x="epoch", **options):
    """Column `name` of a log.csv, [units], and its twin `val_<name>` over column `x`; options as in `curves`.

    log: {column: values}; values may be text, and an empty text is a missing value. KeyError if `name` is missing.
    """
    if name not in log:
        raise KeyError(f"learning_curves: received {name!r}, expected one of {', '.join(sorted(log))}")
    columns = {"training": name, "validation": f"val_{name}"}
    steps = _numbers(log[x] if x in log else range(1, len(log[name]) + 1))
    series = {label: (steps, _numbers(log[column])) for label, column in columns.items() if column in log}
    return curves(series, x_label=x, y_label=f"{name} [{units}]" if units else name, **options)


def scatter(points, labels=None, *, names=None, title=None, x_label=None, y_label=None):
    """Points [N, 2] in the plane, coloured by integer `labels` [N]; `names` are the texts of the labels."""
    points = np.asarray(points, float)
    if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
        bad = np.size(points) - np.isfinite(points).sum()
        raise ValueError(
            f"scatter: received {points.shape}, {bad} values not finite; expected [N, 2]; project codes first"
        )
    labels = np.zeros(len(points), int) if labels is None else np.asarray(labels, int)
    if labels.shape != (len(points),):
        raise ValueError(f"scatter: received labels {labels.shape}, expected ({len(points)},), one per point")
    figure, axes = _axes(title, x_label, y_label, size=(6.0, 5.0))
    size, kinds = float(np.clip(15000 / max(len(points), 1), 6, 25)), np.unique(labels)
    for kind in kinds:
        x, y = points[labels == kind].T
        text = str(kind if names is None else names[kind])
        axes.scatter(x, y, s=size, color=PALETTE[kind % len(PALETTE)], alpha=0.7, linewidths=0, label=text)
    if len(kinds) > 1:
        axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5), markerscale=1.5)
    return _render(figure)


def boxes(image, boxes, classes=None, *, scores=None, names=None, title=None, scale=None):
    """A picture with boxes on it.

    boxes: [N, 4], xyxy in pixels of the picture, x2 and y2 exclusive; parts outside the picture are cut off.
    classes: [N] integers, which choose the colours; rows of class -1 are padding and are left out.
    scores: [N], written behind the class.   names: the texts of the classes.
    """
    from PIL import Image, ImageDraw

    picture, rows = _picture(image, "boxes"), np.asarray(boxes, float)
    rows = rows.reshape(-1, 4) if rows.size == 0 else rows
    if rows.ndim != 2 or rows.shape[1] != 4:
        raise ValueError(f"boxes: received boxes {rows.shape}, expected [N, 4] in xyxy pixels")
    for name, values in (("classes", classes), ("scores", scores)):
        if values is not None and np.shape(values) != (len(rows),):
            raise ValueError(f"boxes: received {name} {np.shape(values)}, expected ({len(rows)},), one per box")
    kinds = np.zeros(len(rows), int) if classes is None else np.asarray(classes, int)
    real = np.flatnonzero(kinds >= 0)
    if not np.isfinite(rows[real]).all() or (rows[real, 2:] < rows[real, :2]).any():
        raise ValueError("boxes: received boxes that are reversed or not finite, expected x1 <= x2 and y1 <= y2")
    scale = scale or max(1, round(PICTURE_SIDE / max(picture.shape)))
    canvas, tags = Image.fromarray(_enlarge(picture, scale)), []
    draw, limits = ImageDraw.Draw(canvas), [*picture.shape[1::-1], *picture.shape[1::-1]]
    for index in real:
        x1, y1, x2, y2 = np.clip(rows[index], 0, limits) * scale
        draw.rectangle([x1, y1, max(x2 - 1, x1), max(y2 - 1, y1)], outline=_rgb(kinds[index]), width=2)
        words = [] if classes is None else [str(kinds[index] if names is None else names[kinds[index]])]
        words += [] if scores is None else [f"{scores[index]:.2f}"]
        tags.append((x1, y1 - LINE + 2, " ".join(words), kinds[index]))
    return _tagged(canvas, tags, title)  # tags after all rectangles, so that no line crosses a text


def skeleton(image, joints, limbs=(), *, kinds=None, names=None, title=None, scale=None):
    """A picture with skeletons on it: lines between joints, and a dot at each.

    joints: [N, J, 2 or 3] or of one skeleton [J, 2 or 3]: x and y in pixels, and 0 for a joint that is left out; NaN
        leaves one out, too.
    limbs: pairs of joints.   kinds: [N] integers, which choose the colours.   names: the texts of the kinds.
    """
    from PIL import Image, ImageDraw

    picture, rows = _picture(image, "skeleton"), np.asarray(joints, float)
    rows = rows[None] if rows.ndim == 2 else rows
    if rows.ndim != 3 or rows.shape[2] not in (2, 3) or (np.size(limbs) and np.max(limbs) >= rows.shape[1]):
        raise ValueError(f"skeleton: received joints {rows.shape}, limbs {limbs}; expected [N, J, 2 or 3], joints < J")
    kinds = np.arange(len(rows)) if kinds is None else np.asarray(kinds, int)
    if kinds.shape != (len(rows),):
        raise ValueError(f"skeleton: received kinds {kinds.shape}, expected ({len(rows)},), one per skeleton")
    scale = scale or max(1, round(PICTURE_SIDE / max(picture.shape)))
    canvas, tags = Image.fromarray(_enlarge(picture, scale)), []
    draw = ImageDraw.Draw(canvas)
    for points, kind in zip(rows, kinds, strict=True):
        there = np.isfinite(points).all(-1) & (points[:, 2:] != 0).all(-1)
        points = points[:, :2] * scale
        for first, second in limbs:
            if there[first] and there[second]:
                draw.line([*points[first], *points[second]], fill=_rgb(kind), width=2)
        for x, y in points[there]:
            draw.ellipse([x - 3, y - 3, x + 3, y + 3], fill=_rgb(kind), outline="white")
        if names is not None and there.any():
            x, y = min(points[there], key=lambda point: point[1])
            tags.append((x + 5, y - LINE, str(names[kind]), kind))
    return _tagged(canvas, tags, title)


def masks(image, masks, *, names=None, title=None, opacity=0.5, scale=None):
    """A picture under coloured masks with full borders.

    masks: instance masks [N, H, W] (true inside), or one map of classes, integers [H, W], where 0 is the background
        and negative values belong to no class.
    names: texts on the masks: one per instance, or one per class of the map (the background's first).
    """
    from PIL import Image

    picture, layers = _picture(image, "masks"), np.asarray(masks)
    if layers.ndim not in (2, 3) or layers.shape[-2:] != picture.shape[:2] or not np.isfinite(layers).all():
        raise ValueError(
            f"masks: received masks {layers.dtype} {layers.shape} on a picture {picture.shape}, expected finite values,"
            " [N, H, W] or [H, W] of the picture's height and width; resize the masks"
        )
    is_map = layers.ndim == 2
    kinds = [int(kind) for kind in np.unique(layers) if kind > 0] if is_map else range(len(layers))
    scale = scale or max(1, round(PICTURE_SIDE / max(picture.shape)))
    result, tags = _enlarge(picture, scale).astype(float), []
    for kind in kinds:
        inside = _enlarge(layers == kind if is_map else layers[kind] > 0.5, scale)
        result[inside] += opacity * (_rgb(kind) - result[inside])
        result[inside & ~_eroded(inside)] = _rgb(kind)
        if names is not None and inside.any():
            y, x = np.argwhere(inside).mean(axis=0)
            tags.append((x - _width(names[kind]) / 2, y - LINE / 2, str(names[kind]), kind))
    return _tagged(Image.fromarray(np.round(result).astype(np.uint8)), tags, title)


def heat_map(values, image=None, *, title=None, units=None, signed=False, limits=None, opacity=0.6):
    """Values [h, w] in colours beside a scale with their units, over a picture where one is given.

    image: the picture underneath; `values` may be coarser and are stretched over it.
    signed: colours diverge from white at zero, the same both ways.   limits: (lowest, highest) of the scale.
    """
    values = np.asarray(values, float)
    if values.ndim != 2 or not values.size or not np.isfinite(values).all():
        bad = values.size - np.isfinite(values).sum()
        raise ValueError(f"heat_map: received {values.shape}, {bad} values not finite; expected finite [h, w]")
    picture = None if image is None else _picture(image, "heat_map")
    height, width = values.shape if picture is None else picture.shape[:2]
    lowest, highest = float(values.min()), float(values.max())
    low, high = limits or ((min(lowest, -highest), max(highest, -lowest)) if signed else (lowest, highest))
    figure, axes = _axes(title, None, None, size=(5.2, 1.0 + 4.0 * float(np.clip(height / width, 0.4, 1.6))))
    place = {"extent": (0, width, height, 0), "interpolation": "nearest"}
    if picture is not None:
        axes.imshow(picture, **place)
    colors = {"cmap": "RdBu_r" if signed else "viridis", "alpha": None if picture is None else opacity}
    shown = axes.imshow(values, vmin=low, vmax=high, **colors, **place)
    axes.set_axis_off()
    figure.colorbar(shown, ax=axes, label=units, shrink=0.9)
    return _render(figure)


def _picture(image, caller):
    """Any accepted picture as uint8 [H, W, 3]."""
    image = np.asarray(image)
    image = image[..., None] if image.ndim == 2 else image
    if image.ndim != 3 or image.shape[2] not in (1, 3) or not image.size:
        raise ValueError(f"{caller}: received a picture {image.shape}, expected [H, W], [H, W, 1] or [H, W, 3]")
    if image.dtype != np.uint8:
        whole, image = np.issubdtype(image.dtype, np.integer), image.astype(np.float32)
        low, high = image.min(), image.max()  # NaN if any pixel is
        if whole or not (low >= -1e-3 and high <= 1 + 1e-3):
            received = f"{'whole ' if whole else ''}numbers from {low:.4g} to {high:.4g}"
            raise ValueError(
                f"{caller}: received a picture of {received}, expected float in [0, 1] or uint8; rescale it"
            )
        image = np.round(255 * np.clip(image, 0, 1)).astype(np.uint8)
    return np.broadcast_to(image, (*image.shape[:2], 3))


def _enlarge(pixels, scale):
    return pixels.repeat(scale, axis=0).repeat(scale, axis=1)


def _eroded(inside):
    """Pixels of a mask [H, W] whose four neighbours belong to it; beyond the edge nothing does."""
    padded = np.pad(inside, 1)
    return padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]


def _rgb(kind):
    return tuple(bytes.fromhex(PALETTE[kind % len(PALETTE)][1:]))


@functools.cache
def _font():
    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(str(pathlib.Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf")), FONT_SIZE)


def _width(text):
    return math.ceil(_font().getlength(str(text)))


def _sheet(tiles, rows, columns, titles=None, row_labels=None, column_labels=None, title=None, gap=0, ground="white"):
    """Tiles on their ground: the title, the column labels, then row by row the pictures' titles and the pictures."""
    from PIL import Image, ImageDraw

    words = [*(titles or ()), *(column_labels or ())]
    height = max(tile.shape[0] for tile in tiles)
    width = max([tile.shape[1] for tile in tiles] + [_width(word) + PAD for word in words])
    left = PAD + max((_width(label) + PAD for label in row_labels or ()), default=0)
    top = PAD + LINE * ((title is not None) + (column_labels is not None))
    line = LINE if titles is not None else 0
    lefts = [left + column * (width + gap) for column in range(columns)]
    tops = [top + row * (line + height + gap) for row in range(rows)]
    size = (max(lefts[-1] + width, PAD + _width(title or "")) + PAD, tops[-1] + line + height + PAD)
    sheet = Image.new("RGB", size, ground)
    texts = [(PAD, LINE // 2 + 2, title or "", "lm")]
    texts += [
        (x + width // 2, top - LINE // 2, label, "mm") for x, label in zip(lefts, column_labels or (), strict=False)
    ]
    texts += [(PAD, y + line + height // 2, label, "lm") for y, label in zip(tops, row_labels or (), strict=False)]
    for index, tile in enumerate(tiles):
        x, y = lefts[index % columns], tops[index // columns]
        texts.append((x + width // 2, y + LINE // 2, titles[index] if titles is not None else "", "mm"))
        sheet.paste(Image.fromarray(tile), (x + (width - tile.shape[1]) // 2, y + line + (height - tile.shape[0]) // 2))
    draw = ImageDraw.Draw(sheet)
    for x, y, text, anchor in texts:
        draw.text((x, y), str(text), fill="black", font=_font(), anchor=anchor)
    return np.array(sheet)


def _tagged(canvas, tags, title):
    """A picture under texts (x, y, text, kind) on their kinds' colours, kept inside; a title above where given."""
    from PIL import ImageDraw

    draw = ImageDraw.Draw(canvas)
    for x, y, text, kind in tags:
        if text:
            width, height = _width(text) + PAD, LINE - 2
            x, y = max(0, min(x, canvas.width - width)), max(0, min(y, canvas.height - height))
            draw.rectangle([x, y, x + width, y + height], fill=_rgb(kind))
            draw.text((x + PAD / 2, y + height / 2), text, fill="white", font=_font(), anchor="lm")
    return np.array(canvas) if title is None else _sheet([np.array(canvas)], 1, 1, title=title)


def _numbers(values):
    return np.array([float(value) if str(value).strip() else np.nan for value in values])


def _points(name, points):
    """x, y and error (zeros where none is given) of one series, each float [N]."""
    parts = points if isinstance(points, tuple) else (np.arange(1, len(points) + 1), points)
    parts = [np.asarray(part, float) for part in parts]
    if len(parts) not in (2, 3) or any(part.ndim != 1 or part.shape != parts[0].shape for part in parts):
        shapes = ", ".join(str(part.shape) for part in parts)
        raise ValueError(f"curves: series {name!r} is {shapes}, expected y, (x, y) or (x, y, error), each [N]")
    return parts[0], parts[1], np.nan_to_num(parts[2]) if len(parts) == 3 else np.zeros_like(parts[1])


def _axes(title, x_label, y_label, size=(6.4, 4.0)):
    from matplotlib.figure import Figure  # not pyplot: no global state, no window, safe in threads

    figure = Figure(figsize=size, dpi=120, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title or "", fontsize=11)
    axes.set(xlabel=x_label, ylabel=y_label)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _render(figure):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
