"""How a scene of `shapes` is painted: float32 [3, size, size] in 0..255, in place where it can be."""

import numpy as np

from dmkeras.data import rendering

TEXTURES = ("plain", "stripes", "checks", "dots", "circles", "grid")


def shadow_fall(size):
    """A shadow falls this many pixels to the lower right."""
    return size // 32


def background(words, size):
    """The picture of a stained wall with sticks before it, and the wall's relief in [0, 1], float32 [size, size]."""
    hue, step, edge, *looks = rendering.uniform(words, 12)
    stains = rendering.spline(rendering.lattice(words, 3, 7, 7), size)
    fine = rendering.spline(rendering.lattice(words, 1, 22, 22), size)[0]
    tones = [rendering.colour(hue + step * k, 0.7 * looks[k], 0.25 + 0.65 * looks[k + 3]) for k in range(3)]
    tones = np.array(tones, "float32")[:, :, None, None]
    soft = rendering.fraction(stains[0] * 2 + fine * 0.7 - 0.85)
    hard = rendering.fraction((stains[1] + 0.4 * fine - 0.7) * (4 + 36 * edge) + 0.5)
    picture = tones[0] + (tones[1] - tones[0]) * soft
    picture += (tones[2] - picture) * hard
    for _ in range(int(4 + 9 * looks[6])):
        _stick(picture, rendering.uniform(words, 9), size)
    return picture, (stains[0] + 2 * stains[2]) / 3


def _stick(picture, draws, size):
    place_x, place_y, turn, length, thickness, opacity, *look = draws
    c, s = rendering.rotation(turn - 0.5)
    half, width = size * (0.04 + 0.14 * length), size * (0.004 + 0.012 * thickness)
    cx, cy, reach_x, reach_y = place_x * size, place_y * size, half * abs(c) + width + 1, half * abs(s) + width + 1
    left, right = max(int(cx - reach_x), 0), min(int(cx + reach_x) + 1, size)
    top, bottom = max(int(cy - reach_y), 0), min(int(cy + reach_y) + 1, size)
    x = np.arange(left, right, dtype="float32") + np.float32(0.5 - cx)
    y = np.arange(top, bottom, dtype="float32") + np.float32(0.5 - cy)
    along, across = x * c + (y * s)[:, None], y[:, None] * c - x * s
    distance = np.maximum(np.abs(along) - half, np.abs(across) - width)
    region = picture[:, top:bottom, left:right]
    tone = np.array(rendering.colour(*look), "float32")[:, None, None]
    region += (tone - region) * (rendering.fraction(0.5 - distance) * (0.5 + 0.5 * opacity))


def paint(picture, plate, size):
    """Paints the plate's shadow, then the plate, over what is behind it; its outline is smoothed over one pixel."""
    shadow, bevel, sheen_x, sheen_y, texture, *looks = plate.looks
    fall = shadow_fall(size)
    region = picture[:, plate.top + fall :, plate.left + fall :]
    region = region[:, : len(plate.y), : len(plate.x)]
    dark = rendering.fraction(plate.distance * (-1 / fall)) * (0.7 * shadow)
    region *= 1 - dark[: region.shape[1], : region.shape[2]]

    inside = np.s_[max(-plate.top, 0) :, max(-plate.left, 0) :]
    distance, x, y = plate.distance[inside], plate.x[inside[1]], plate.y[inside[0]]
    radius = min(plate.axes)
    brightness = x * ((sheen_x - 0.7) * 0.5 / radius) + (y * ((sheen_y - 0.7) * 0.5 / radius) + 1)[:, None]
    brightness -= 0.35 * bevel * rendering.fraction(1 + distance * (6 / radius))
    first = np.array(rendering.colour(looks[0], 0.35 + 0.65 * looks[1], 0.35 + 0.65 * looks[2]), "float32")
    second = np.array(rendering.colour(looks[0] + 0.15 + 0.7 * looks[3], looks[4], 0.15 + 0.85 * looks[5]), "float32")
    share = _texture(TEXTURES[int(texture * len(TEXTURES))], x, y, radius, looks[6:])
    body = share * (second - first)[:, None, None] + first[:, None, None]
    body *= brightness
    region = picture[:, max(plate.top, 0) :, max(plate.left, 0) :][:, : len(y), : len(x)]
    body -= region
    body *= rendering.fraction(0.5 - distance)
    region += body


def _texture(kind, x, y, radius, looks):
    """float32 [h, w] in [0, 1], the share of the second colour, in a direction and at a scale of its own."""
    period = max(radius * (0.3 + 0.4 * looks[0]), 3.0)
    c, s = rendering.rotation(looks[1] - 0.5)
    p = x * (c / period) + (y * (s / period) + looks[2])[:, None]
    q = x * (-s / period) + (y * (c / period) + looks[3])[:, None]
    if kind == "plain":
        return np.zeros_like(p)
    if kind == "circles":
        p = np.sqrt(p * p + q * q)
    p = np.abs(p - np.floor(p) - 0.5)  # 0 in the middle of each period, 1/2 at its ends
    if kind in ("stripes", "circles"):
        return rendering.fraction(0.5 + (p - 0.25) * period)
    q = np.abs(q - np.floor(q) - 0.5)
    if kind == "checks":
        pattern = 4 * (p - 0.25) * (q - 0.25)
    elif kind == "dots":
        pattern = 0.32 - np.sqrt(p * p + q * q)
    else:
        pattern = np.maximum(p, q) - 0.38
    return rendering.fraction(0.5 + pattern * period)


def light(picture, words):
    """Uneven light over the whole picture, the sensor's grain, and 0..255 at the end; in place."""
    dim, rough = rendering.uniform(words, 2)
    shade = rendering.spline(rendering.lattice(words, 1, 5, 5), picture.shape[1])
    picture *= 1 + 0.79 * dim - 1.6 * dim * shade
    picture += rendering.grain(words, picture.shape, 2) * (1 + 9 * rough * rough)
    picture += 0.5
    np.clip(picture, 0, 255, out=picture)
