"""Bits per dimension of a trained PixelCNN beside lossless image formats: who understands the data compresses it.

    python -m benchmarks.compression runs/pixel_cnn/0001/model.keras --data fashion_mnist
    python -m benchmarks.compression runs/pixel_cnn/0002/model.keras --data cifar10_excerpt:DIR

A dimension is one colour value of one pixel, 8 bits as it stands. The test split, every picture of it:

    model               -log2 p(x): the length of the ideal code, which an arithmetic coder reaches to within two bits a
                        picture. The model itself is not counted, as a format's decoder is not.
    PNG                 Pillow, optimize, the shortest of zlib's five strategies for each picture
    WebP                Pillow, lossless, method 6, quality 100
    per-pixel histogram each position and colour an own distribution: counts of the training split, each plus one
    bzip2, LZMA         of all bytes at once, picture after picture or, where shorter, position after position

`file` is what lies on the disk; `payload` leaves out what every file of the kind repeats (of PNG all but the data of
IDAT, of WebP the headers of RIFF and of its one chunk), the fairer measure for small pictures. `one sheet` is the test
split as one picture of square tiles, where headers cost nothing and a code table is shared by all. What is encoded is
decoded again and compared. Standard errors are over pictures.
"""

import argparse
import bz2
import io
import lzma
import math
import struct
import sys

import numpy as np
import PIL.Image

from dmkeras.data import binarization

STRATEGIES = range(5)  # zlib's default, filtered, Huffman only, run lengths, fixed codes


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="trained .keras files, of 256 levels")
    parser.add_argument("--data", default="fashion_mnist", help="fashion_mnist, cifar10_excerpt:DIR or another set")
    parser.add_argument("--data-dir")
    parser.add_argument("--limit", type=int, help="only so many test pictures")
    arguments = parser.parse_args()
    read = lambda split: binarization.images(arguments.data, split, "none", data_dir=arguments.data_dir)
    train, test = (np.rint(255 * read(split)).astype("uint8") for split in ("train", "test"))
    test = test[: arguments.limit]
    rows = formats(test) | {"per-pixel histogram of the training split": histogram(train, test)}
    ours = {f"{path}, ideal code": model_bits(path, test) for path in arguments.models}
    print(f"{arguments.data}: {len(test)} test pictures {list(test.shape[1:])}, Pillow {PIL.__version__}\n")
    report(rows | ours, test)
    best = min(np.mean(bits) for bits in rows.values())
    if any(np.mean(bits) >= best for bits in ours.values()):
        sys.exit("a model does not compress better than every other row")


def report(rows, test):
    """Rows {name: bits of each picture [N], or a number a picture}, shortest code first."""
    dimensions = test[0].size
    print("| code | bits a dimension | standard error | bytes a picture |")
    print("| --- | --- | --- | --- |")
    for name, bits in sorted(rows.items(), key=lambda row: np.mean(row[1])):
        error = f"{np.std(bits) / math.sqrt(len(bits)) / dimensions:.4f}" if np.ndim(bits) else ""
        print(f"| {name} | {np.mean(bits) / dimensions:.4f} | {error} | {np.mean(bits) / 8:.1f} |")


def model_bits(path, test):
    """-log2 p(x) of each picture, by a model of 256 levels."""
    import dmkeras

    model = dmkeras.load(path)
    if (model.levels, tuple(model.image_shape)) != (256, test.shape[1:]):
        expected = f"256 levels and pictures {list(test.shape[1:])}"
        raise ValueError(f"{path}: expected {expected}, received {model.levels} and {list(model.image_shape)}")
    batches = (test[start : start + 100] / np.float32(255) for start in range(0, len(test), 100))
    return -np.concatenate([model.log_prob(batch) for batch in batches]).astype("float64") / math.log(2)


def histogram(train, test):
    """-log2 of each picture under independent positions and colours, with one count more for every level."""
    train, test = train.reshape(len(train), -1), test.reshape(len(test), -1)
    bits = np.zeros(len(test))
    for position in range(train.shape[1]):
        counts = np.bincount(train[:, position], minlength=256) + 1
        bits -= np.log2(counts[test[:, position]] / counts.sum())
    return bits


def formats(test):
    """Bits of the pictures as files, payloads, one sheet and one stream."""
    pngs, webps = [shortest_png(image) for image in test], [encode(image, WEBP) for image in test]
    sheet = tiled(test)
    png, webp = shortest_png(sheet), encode(sheet, WEBP)
    rows = {
        "PNG, file": np.array([8 * len(data) for data in pngs]),
        "PNG, payload": np.array([8 * png_payload(data) for data in pngs]),
        "PNG, one sheet": 8 * len(png) / len(test),
        "WebP, file": np.array([8 * len(data) for data in webps]),
        "WebP, payload": np.array([8 * webp_payload(data) for data in webps]),
        "WebP, one sheet": 8 * len(webp) / len(test),
    }
    streams = [test.tobytes(), np.moveaxis(test, 0, -1).tobytes()]
    for name, compress in (("bzip2", bz2.compress), ("LZMA", lambda data: lzma.compress(data, preset=9))):
        rows[f"{name}, one stream"] = min(8 * len(compress(stream)) for stream in streams) / len(test)
    return rows


WEBP = {"format": "WEBP", "lossless": True, "quality": 100, "method": 6, "exact": True}


def shortest_png(image):
    options = {"format": "PNG", "optimize": True, "compress_level": 9}
    return min((encode(image, options | {"compress_type": strategy}) for strategy in STRATEGIES), key=len)


def encode(image, options):
    """The file of a picture uint8 [H, W, C] as bytes; AssertionError if it does not come out of it again."""
    stream = io.BytesIO()
    PIL.Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(stream, **options)
    with PIL.Image.open(stream) as file:
        decoded = np.asarray(file)  # of WebP always in colours
    decoded = decoded if decoded.ndim == 3 else decoded[..., None]
    if not (decoded == image).all():
        raise AssertionError(f"{options['format']} is not lossless")
    return stream.getvalue()


def png_payload(data):
    """Bytes of the IDAT chunks' content; a chunk is its length, its type, its content and a checksum."""
    place, total = 8, 0
    while place < len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        total += length * (data[place + 4 : place + 8] == b"IDAT")
        place += length + 12
    return total


def webp_payload(data):
    """Bytes of the one chunk VP8L's content: RIFF, size, WEBP, then the chunk's type, its length and its content."""
    if data[12:16] != b"VP8L":
        raise AssertionError(f"expected one chunk VP8L, received {data[12:16]}")
    return struct.unpack("<I", data[16:20])[0]


def tiled(images):
    """All pictures as one of square tiles, the last row filled up with zeros."""
    count, height, width, colours = images.shape
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    images = np.concatenate([images, np.zeros((rows * columns - count, height, width, colours), "uint8")])
    tiles = images.reshape(rows, columns, height, width, colours).swapaxes(1, 2)
    return tiles.reshape(rows * height, columns * width, colours)


if __name__ == "__main__":
    main()
