"""Picture files -> the array that a signature takes, and what an answer holds that can be drawn."""

import io

import numpy as np

from dmkeras.serving.rest_json import RequestError

MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # Pillow's names of 1, 3 and 4 channels


def takes_pictures(tensor):
    """Whether a Tensor is a batch of pictures, [B, H, W, C] or encoded files [B]."""
    if tensor.dtype == "string":
        return tensor.name.endswith("_bytes") and len(tensor.shape) == 1
    return tensor.dtype in ("float32", "uint8") and len(tensor.shape) == 4 and tensor.shape[3] in MODES


def read(paths, tensor):
    """Files -> (array [B, ...] for a Tensor that takes pictures, what was changed in each).

    Files for a string input are sent as they are. Others are turned upright (EXIF), made grey or coloured, resized to
    the signature's height and width, and scaled to [0, 1] for a float input. RequestError for what is no picture.
    """
    contents = []
    for path in paths:
        with open(path, "rb") as file:
            contents.append(file.read())
    images = [_decoded(path, content) for path, content in zip(paths, contents, strict=True)]
    if tensor.dtype == "string":
        array = np.empty(len(contents), object)
        array[:] = contents
        return array, []
    fitted = [_fitted(image, tensor) for image in images]
    if len({image.size for image in fitted}) > 1:
        raise RequestError("the pictures differ in size, and this signature does not fix one: send them one at a time")
    notes = [
        f"{path}: {before.mode} {before.width}x{before.height} -> {after.mode} {after.width}x{after.height}"
        for path, before, after in zip(paths, images, fitted, strict=True)
        if (before.mode, before.size) != (after.mode, after.size)
    ]
    pixels = np.stack([np.asarray(image).reshape(image.height, image.width, tensor.shape[3]) for image in fitted])
    return (pixels / np.float32(255) if tensor.dtype == "float32" else pixels), notes


def drawable(outputs):
    """{name: pictures} of the outputs that are pictures: encoded, uint8, or float in [0, 1], with 1 or 3 channels."""
    return {name: found for name, array in outputs.items() if (found := _pictures(name, array)) is not None}


def _pictures(name, array):
    if array.dtype == object:
        if not name.endswith("_bytes") or array.ndim != 1:
            return None
        try:
            return [np.asarray(_decoded(name, content).convert("RGB")) for content in array]
        except RequestError:
            return None
    if array.ndim != 4 or array.shape[3] not in (1, 3) or array.dtype not in (np.float32, np.uint8):
        return None
    return None if array.dtype == np.float32 and not ((array >= 0) & (array <= 1)).all() else list(array)


def _decoded(name, content):
    from PIL import Image, ImageOps

    try:
        image = Image.open(io.BytesIO(content))
        image.load()
        return ImageOps.exif_transpose(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise RequestError(f"{name} is not a picture that can be read: {error}") from error


def _fitted(image, tensor):
    from PIL import Image

    _, height, width, channels = tensor.shape
    if image.mode.startswith("I"):  # 16 bits; Pillow's own conversion would cut every value at 255
        image = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
    size = (width or image.width, height or image.height)
    image = image.convert(MODES[channels])
    return image if image.size == size else image.resize(size, Image.Resampling.BILINEAR)
