"""Encoder and decoder: a class for every pixel, from small maps that four kinds of upsampling make large again.

Badrinarayanan, Kendall and Cipolla, "SegNet: A Deep Convolutional Encoder-Decoder Architecture for Image Segmentation"
(https://arxiv.org/abs/1511.00561), sections 3 and 4; Noh, Hong and Han, "Learning Deconvolution Network for Semantic
Segmentation" (https://arxiv.org/abs/1505.04366), section 3.

    block       3x3 convolution, batch normalisation, max(0, a)
    encoder     stage i = 1 .. L: c_i blocks of M_i maps; maximum pooling by 2, whose positions are remembered
    decoder     stage i = L .. 1: upsampling by 2, to the sides that stage had; c_i blocks of M_i maps, the last of them
                of M_(i-1), which comes next; in stage 1 the last is a convolution to K logits alone
    loss        the cross-entropy of pixels that have an answer, a mean with the weights of their classes, which
                dmkeras/parts/segmentation_loss.py takes of their frequencies (section 4)

The four upsamplings (dmkeras/parts/upsampling.py) stand at the same places, and nothing else differs:

    unpooling         what a pixel becomes                              parameters beside the others'
    "nearest"         four of its kind                                  none
    "bed_of_nails"    itself at the top left of zeros                   none
    "max"             itself where the encoder's maximum was            none: SegNet's, and that of Noh et al.
    "transposed"      4x4 pixels, each a mixture of its channels that   sum_i 16 M_i^2
                      is learned, bilinear at first

Pictures may have any sides: pooling rounds up, and what was made large is cut to the sides that were pooled.

Shapes:  B batch, H height, W width, C colours, L stages, K classes; c_i blocks and M_i maps of stage i.

Deviations from SegNet, each with its reason:
- Pictures are shifted by half, so that the convolutions' border of zeros is grey. The paper evens local contrast, a
  part of which normalisation takes over.
- Weights start after He et al. The paper takes those of VGG-16, of whose sizes `filters` and `convolutions` are by
  default.
- Of Noh et al.: their fully connected layers in the middle, which fix the size of pictures, are left out, and their
  transposed convolutions of stride 1 are convolutions by another name.
"""

import keras
import tensorflow as tf
from keras import layers

from dmkeras.backbones.darknet19 import ConvBlock
from dmkeras.parts import checks, segmentation_loss, segmentation_metrics, segmenter_doors, upsampling_layers
from dmkeras.parts.upsampling import sides_of

UPSAMPLINGS = {
    "nearest": upsampling_layers.NearestUpsampling,
    "bed_of_nails": upsampling_layers.BedOfNails,
    "max": upsampling_layers.MaxUnpooling,
    "transposed": upsampling_layers.TransposedConvolution,
}


@checks.looks_at_first_batch
@keras.saving.register_keras_serializable("dmkeras")
class EncoderDecoder(keras.Model):
    """A network that tells the class of every pixel.

    Call: images `[B, H, W, C]` float32 in [0, 1], of any size  ->  logits `[B, H, W, K]` float32.

    | signature | inputs | outputs |
    | --- | --- | --- |
    | serving_default | images [B, H, W, C] float32 in [0, 1] | classes [B, H, W] int32, scores [B, H, W] float32 |
    | segment | images | classes, scores |
    | segment_bytes | image_bytes [B] string, JPEG or PNG of any size | class_map_bytes [B] string, overlay_bytes [B] string |

    scores are the probabilities of the classes found. `class_map_bytes` are grey PNG files of the size of the pictures
    sent, whose pixels are classes; `overlay_bytes` the pictures under their classes' colours. `segment_bytes` is for one
    or three colours. `fit` takes (images, labels [B, H, W] whole numbers, 0 background, -1 void); `mean_iou` stands
    beside the loss.

    Args:
        image_shape: (H, W, C) of the pictures it is meant for; only C binds.
        num_classes: K, background among them.
        unpooling: `"nearest"`, `"bed_of_nails"`, `"max"` or `"transposed"`, see the module.
        filters: M_i of each stage; small pictures want fewer: `(16, 32, 64)`.
        convolutions: c_i of each stage.
        class_weights: K numbers for the loss, such as `segmentation_loss.median_frequency_weights` gives; None for ones.
        momentum: of the moving statistics; a training of some hundred steps wants less.

    Raises:
        ValueError: for sizes, stages or weights that cannot be; `fit` raises it for pictures and labels of other shapes
            or out of range, `segment` and `probabilities` for pictures.
    """  # noqa: E501 - rows of the table

    def __init__(
        self,
        image_shape=(360, 480, 3),
        num_classes=11,
        unpooling="max",
        filters=(64, 128, 256, 512, 512),
        convolutions=(2, 2, 3, 3, 3),
        class_weights=None,
        momentum=0.99,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.image_shape = checks.check_image_shape(image_shape)
        self.num_classes = segmenter_doors.check_num_classes(num_classes)
        self.unpooling = checks.one_of("unpooling", unpooling, tuple(UPSAMPLINGS))
        self.filters, self.convolutions = _check_stages(filters, convolutions)
        weighted = class_weights is not None
        self.class_weights = segmentation_loss.checked_weights(class_weights, num_classes) if weighted else None
        self.momentum = checks.number("momentum", momentum, below=1)
        self._make_stages()
        self.mean_iou = segmentation_metrics.streaming_mean_iou(self.num_classes)
        self(keras.Input((None, None, self.image_shape[2])))

    def _make_stages(self):
        policy = {"dtype": self.dtype_policy}
        block = lambda name, maps: ConvBlock(maps, leaky_slope=0.0, momentum=self.momentum, name=name, **policy)
        self.encoder, self.decoder, self.upsamplings = [], [], []
        for i, (maps, count) in enumerate(zip(self.filters, self.convolutions)):
            last = self.filters[i - 1 : i]  # of the decoder's stage; none in stage 1, whose last gives the logits
            self.encoder.append([block(f"encoder_{i}_{j}", maps) for j in range(count)])
            self.decoder.append([block(f"decoder_{i}_{j}", m) for j, m in enumerate((maps,) * (count - 1) + last)])
            self.upsamplings.append(UPSAMPLINGS[self.unpooling](name=f"upsampling_{i}", **policy))
        self.pool = upsampling_layers.MaxPooling(name="pool", **policy)
        self.classifier = layers.Conv2D(self.num_classes, 3, padding="same", name="classifier", dtype="float32")

    def call(self, images, training=False):
        return self.decode(*self.encode(images, training), training)

    def encode(self, images, training=False):
        """Images [B, H, W, C] -> the last stage's maps, pooled, and of each stage (positions, maps before pooling)."""
        maps, trail = tf.cast(images, self.compute_dtype) - 0.5, []
        for blocks in self.encoder:
            for block in blocks:
                maps = block(maps, training=training)
            pooled, positions = self.pool(maps)
            trail.append((positions, maps))
            maps = pooled
        return maps, trail

    def decode(self, maps, trail, training=False):
        """What `encode` gives -> logits [B, H, W, K]. Of the maps before pooling nothing but their sides is taken."""
        for upsample, blocks, (positions, before) in zip(self.upsamplings[::-1], self.decoder[::-1], trail[::-1]):
            maps = upsample(maps, positions) if self.unpooling == "max" else upsample(maps)
            height, width = sides_of(before)
            maps = maps[:, :height, :width]
            for block in blocks:
                maps = block(maps, training=training)
        return self.classifier(maps)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The cross-entropy of labels `y` [B, H, W], nats a pixel; -1 takes no part."""
        self.mean_iou.update_state(y, y_pred)
        return segmentation_loss.pixel_cross_entropy(y, y_pred, self.class_weights, sample_weight)

    # --- segmentation, doors ------------------------------------------------------------------------------------------

    def segment(self, images):
        """The class of every pixel: images [B, H, W, C] in [0, 1], or one [H, W, C] -> int32 [B, H, W] or [H, W]."""
        return tf.argmax(self.probabilities(images), -1, output_type="int32")

    def probabilities(self, images):
        """Those of all classes: images [B, H, W, C] in [0, 1], or one [H, W, C] -> float32 [B, H, W, K], or [H, W, K].

        Raises:
            ValueError: for pictures of other channels or out of range.
        """
        self.check_images(images[None] if len(getattr(images, "shape", ())) == 3 else images)
        return tf.nn.softmax(segmenter_doors.any_size(self, images, stride=1))

    def signatures(self):
        return segmenter_doors.signatures(self, stride=1, channels=self.image_shape[2])

    def check_images(self, images):
        shape = tuple(getattr(images, "shape", ()))
        checks.check_images(images, (*shape[1:3], self.image_shape[2]) if len(shape) == 4 else self.image_shape)

    def check_targets(self, labels):
        segmenter_doors.check_labels(labels, self.num_classes)

    def get_config(self):
        own = ("image_shape", "num_classes", "unpooling", "filters", "convolutions", "class_weights", "momentum")
        return {**super().get_config(), **{name: getattr(self, name) for name in own}}


def _check_stages(filters, convolutions):
    """Both as tuples of as many whole numbers; else ValueError."""
    both = {"filters": filters, "convolutions": convolutions}
    if not all(isinstance(counts, (list, tuple)) for counts in both.values()) or not 0 < len(filters) == len(
        convolutions
    ):
        raise ValueError(f"expected a number of each stage, received filters={filters}, convolutions={convolutions}")
    return (tuple(checks.whole_number(name, count, 1) for count in counts) for name, counts in both.items())
