"""A plain small classifier, trained in seconds: the referee of generated pictures, and what explanations are tried on.

    3x3 convolution, batch normalisation, rectifier, maximum over 2x2     while a side is above 4
    3x3 convolution, batch normalisation, rectifier
    dense layer of features, rectifier; dense logits

No paper's network: convolutions in pairs with pooling are Simonyan and Zisserman's (https://arxiv.org/abs/1409.1556),
normalisation is Ioffe and Szegedy's (https://arxiv.org/abs/1502.03167), weights start after He et al.
(https://arxiv.org/abs/1502.01852).

Shapes:  B batch, H height, W width, C colours, F filters of the first convolution, K classes.
"""

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from dmkeras.parts import classification
from dmkeras.parts.checks import check_image_shape, check_images, looks_at_first_batch, whole_number
from dmkeras.parts.seeds import check_seed

SMALLEST = 4  # sides above it are halved
WIDEST = 4  # a convolution has at most WIDEST * F maps, and there are as many features
ENOUGH = 200_000  # pictures shown in training, where nobody says how many epochs


@looks_at_first_batch
@keras.saving.register_keras_serializable("dmkeras")
class SmallCNN(keras.Model):
    """Convolutions, a dense layer of 4 F features, logits.

    Call: images `[B, H, W, C]` float32 in [0, 1]  ->  logits `[B, K]` float32.

    | signature | inputs | outputs |
    | --- | --- | --- |
    | serving_default | images [B, H, W, C] float32 in [0, 1] | logits [B, K], probabilities [B, K] float32 |
    | classify_bytes | image_bytes [B] string, JPEG or PNG files | logits, probabilities |

    `classify_bytes`, of one or three colours, resizes the decoded pictures to H x W. The loss is the cross-entropy of
    whole-numbered labels [B]; `accuracy` stands beside it.

    Args:
        image_shape: (H, W, C) of one image.
        num_classes: K.
        filters: F; each further convolution has twice as many, up to 4 F.
        seed: of the weights at first; None takes them from Keras's random state.

    Raises:
        ValueError: for sizes below one, or one class; `fit`, `evaluate` and `features` raise it for images of another
            shape or outside [0, 1], the first two for labels that are no classes.
    """

    def __init__(self, image_shape, num_classes, filters=32, seed=None, **kwargs):
        super().__init__(**kwargs)
        check_seed(seed)
        self.image_shape, self.seed = check_image_shape(image_shape), seed
        self.num_classes = whole_number("num_classes", num_classes, 2)
        self.filters = filters = whole_number("filters", filters, 1)
        self.stages = self._convolutions()
        self.dense = layers.Dense(WIDEST * filters, "relu", name="features", **self._options("features"))
        self.logits = layers.Dense(num_classes, name="logits", **{**self._options("logits"), "dtype": "float32"})
        self.trackers = [keras.metrics.SparseCategoricalAccuracy(name="accuracy")]
        self(keras.Input(self.image_shape))

    def _options(self, name):
        """Each layer's initial weights follow from `seed` and its name."""
        seed = None
        if self.seed is not None:
            seed = int(np.random.SeedSequence([self.seed, *name.encode()]).generate_state(1)[0])
        return {"kernel_initializer": keras.initializers.HeNormal(seed=seed), "dtype": self.dtype_policy}

    def _convolutions(self):
        stages, sides, policy = [], self.image_shape[:2], {"dtype": self.dtype_policy}
        while True:
            name = f"stage_{len(stages)}"
            maps = self.filters * min(WIDEST, 2 ** len(stages))
            own = lambda part, name=name: {"name": f"{name}_{part}"}  # names that are the same in every process
            parts = [layers.Conv2D(maps, 3, padding="same", use_bias=False, **own("conv"), **self._options(name))]
            parts += [layers.BatchNormalization(momentum=0.9, **own("norm"), **policy)]
            parts += [layers.ReLU(**own("relu"), **policy)]
            steps = tuple(2 if side > SMALLEST else 1 for side in sides)
            if max(steps) == 1:
                return [*stages, keras.Sequential(parts, name=name)]
            parts.append(layers.MaxPooling2D(steps, padding="same", **own("pool"), **policy))
            stages.append(keras.Sequential(parts, name=name))
            sides = tuple(-(-side // step) for side, step in zip(sides, steps, strict=True))

    def _stages(self, images, training=False):
        """{name: outputs}, first to last."""
        found, maps = {}, tf.cast(images, self.compute_dtype)
        for stage in self.stages:
            maps = found[stage.name] = stage(maps, training=training)
        return {**found, "features": self.dense(layers.Flatten(dtype=self.dtype_policy)(maps))}

    def call(self, images, training=False):
        return self.logits(self._stages(images, training)["features"])

    def features(self, images):
        """What every stage makes of images [B, H, W, C] in [0, 1].

        Returns:
            {name: float32}: `stage_0`, `stage_1` ... [B, height, width, maps] and `features` [B, 4 F].
        """
        self.check_images(images)
        return {name: tf.cast(values, "float32") for name, values in self._stages(images).items()}

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The cross-entropy of labels `y` [B], averaged over the batch, nats."""
        (accuracy,) = self.trackers
        accuracy.update_state(y, y_pred, sample_weight)
        return classification.cross_entropy(y, y_pred, sample_weight)

    def check_images(self, images):
        check_images(images, self.image_shape)

    def check_targets(self, labels):
        classification.check_labels(labels, self.num_classes)

    def signatures(self):
        return classification.signatures(self)

    def get_config(self):
        own = ("image_shape", "num_classes", "filters", "seed")
        return {**super().get_config(), **{name: getattr(self, name) for name in own}}


def trained(images, labels, seed=0, epochs=None, batch_size=64, filters=32):
    """A SmallCNN fitted to pictures: Adam, whose rate falls from 0.002 to 0 along a cosine.

    Initial weights and order are functions of `seed` alone, the process's random states stay as they are, and its dtype
    policy does not matter: on a CPU the same call gives the same weights again. A GPU may add in another order unless
    `tf.config.experimental.enable_op_determinism()` forbids it.

    Args:
        images: [N, H, W, C] in [0, 1].
        labels: [N] integers, 0 to K - 1; the largest tells K.
        seed: integer.
        epochs: passes over the pictures; None: as many as show 200,000 of them, from 3 to 20.
        batch_size: pictures a step; what is left of an epoch is left out.
        filters: of the first convolution.

    Raises:
        ValueError: for pictures that are no [N, H, W, C] in [0, 1], labels that do not fit them, or no epoch.
    """
    images, labels = _examples(images, labels)
    epochs = min(20, max(3, round(ENOUGH / len(images)))) if epochs is None else epochs
    epochs, batch_size = whole_number("epochs", epochs, 1), whole_number("batch_size", batch_size, 1)
    if seed is None:
        raise ValueError("seed must be an integer, received None: a referee has to be the same again")
    model = SmallCNN(images.shape[1:], int(labels.max()) + 1, filters, seed, dtype="float32")
    size = min(batch_size, len(images))
    generator, steps = np.random.default_rng(seed), len(images) // size
    orders = [generator.permutation(len(images))[: steps * size].reshape(steps, size) for _ in range(epochs)]
    data = tf.constant(images), tf.constant(labels)
    batches = tf.data.Dataset.from_tensor_slices(np.concatenate(orders).astype("int32"))
    batches = batches.map(lambda rows: tuple(tf.gather(array, rows) for array in data))
    rate = keras.optimizers.schedules.CosineDecay(2e-3, epochs * steps)
    model.compile(keras.optimizers.Adam(rate), jit_compile=False)
    model.fit(batches, shuffle=False, verbose=0)  # all epochs are one to Keras: the order of each stands in `orders`
    return model


def _examples(images, labels):
    """Arrays float32 [N, H, W, C] and int32 [N]; ValueError unless they are examples of at least two classes."""
    images, labels = np.asarray(images), np.asarray(labels)
    if images.ndim != 4 or not len(images):
        raise ValueError(f"expected images [N, H, W, C], received {list(images.shape)}")
    check_images(images, images.shape[1:])
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
        raise ValueError(
            f"expected a whole number for each of {len(images)} images, received labels {list(labels.shape)} "
            f"of {labels.dtype}; one-hot rows become numbers by argmax"
        )
    if labels.min() < 0 or labels.max() < 1:
        raise ValueError(f"expected labels from 0 to K - 1, K at least 2, received {labels.min()} to {labels.max()}")
    return images.astype("float32"), labels.astype("int32")
