"""Picture files -> the rows that a signature takes."""

import io

import numpy as np

from dmkeras.serving.rest_json import RequestError

MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # Pillow's names of 1, 3 and 4 channels


def takes_pictures(tensor):
    """Whether a Tensor is a batch of pictures, [B, H, W, C] or encoded files [B]."""
    if tensor.shape is None:
        return False
    if tensor.dtype == "string":
        return tensor.name.endswith("_bytes") and len(tensor.shape) == 1
    return tensor.dtype in ("float32", "uint8") and len(tensor.shape) == 4 and tensor.shape[3] in MODES


def read(path, tensor):
    """A file -> (its row for a Tensor that takes pictures, what was changed in it or None).

    A file for a string input is sent as it is. Others are turned upright (EXIF), made grey or coloured, resized to
    the signature's height and width, and scaled to [0, 1] for a float input. RequestError for what is no picture.
    """
    content = _content(path)
    image = decoded(path, content)
    if tensor.dtype == "string":
        return content, None
    fitted = _fitted(image, tensor)
    pixels = np.asarray(fitted).reshape(fitted.height, fitted.width, tensor.shape[3])
    changed = (image.mode, image.size) != (fitted.mode, fitted.size)
    sizes = [f"{picture.mode} {picture.width}x{picture.height}" for picture in (image, fitted)]
    note = f"{path}: {' -> '.join(sizes)}" if changed else None
    return (pixels / np.float32(255) if tensor.dtype == "float32" else pixels), note


def stacked(rows):
    """Rows of one kind and size -> array [B, ...]."""
    if not isinstance(rows[0], bytes):
        return np.stack(rows)
    array = np.empty(len(rows), object)
    array[:] = rows
    return array


def shown(path, tensor):
    """The picture uint8 [H, W, 3] as the signature sees it."""
    image = decoded(path, _content(path))
    return np.asarray((image if tensor.dtype == "string" else _fitted(image, tensor)).convert("RGB"))


def decoded(name, content):
    """The Pillow image of an encoded picture, upright; RequestError with its name for what is none."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        image = Image.open(io.BytesIO(content))
        image.load()
        return ImageOps.exif_transpose(image)
    except UnidentifiedImageError as error:  # whose text shows an object of Python
        raise RequestError(f"{name} is not a picture of a format that can be read, such as PNG or JPEG") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise RequestError(f"{name} is not a picture that can be read: {error}") from error


def _content(path):
    with open(path, "rb") as file:
        return file.read()


def _fitted(image, tensor):
    from PIL import Image

    _, height, width, channels = tensor.shape
    if image.mode.startswith("I"):  # 16 bits; Pillow's own conversion would cut every value at 255
        image = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
    size = (width or image.width, height or image.height)
    image = image.convert(MODES[channels])
    return image if image.size == size else image.resize(size, Image.Resampling.BILINEAR)
