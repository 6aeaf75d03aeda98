"""Autoencoders: a code from which a picture can be rebuilt, learned by back-propagation.

Rumelhart, Hinton and Williams, "Learning internal representations by error propagation", Parallel Distributed
Processing 1, 1986, chapter 8, section "The encoding problem" (https://doi.org/10.21236/ADA164453);
Hinton and Salakhutdinov, "Reducing the dimensionality of data with neural networks", Science 313, 2006
(https://doi.org/10.1126/science.1127647); denoising: Vincent, Larochelle, Bengio and Manzagol, ICML 2008
(https://doi.org/10.1145/1390156.1390294) and, for Gaussian noise, Vincent et al., JMLR 11, 2010
(https://jmlr.org/papers/v11/vincent10a.html).

    z  = f(x + noise * e),  e ~ N(0, I)      the encoder; noise = 0 is the plain autoencoder
    y  = g(z)                                the decoder, the encoder's layers mirrored
    cross_entropy    loss = -sum_p [x_p log s(y_p) + (1 - x_p) log(1 - s(y_p))]    s the sigmoid; nats per picture
    squared_error    loss = sum_p (x_p - y_p)^2                                    per picture

Cross-entropy is the default, as in the 2006 paper: its gradient in y is s(y) - x, which does not vanish where the
sigmoid saturates. For grey pixels it is no likelihood. With squared error and no hidden layer the autoencoder is
linear, and its best code spans the principal subspace (Baldi and Hornik, Neural Networks 2, 1989).

Shapes:  B batch, H height, W width, C channels, Z latent size, N pictures, F features.

Deviations from the papers, each with its reason:
- All layers are trained at once from Glorot-uniform weights; with Adam and rectifiers the 2006 paper's layerwise
  pre-training by Boltzmann machines is no longer needed.
- Hidden units are rectifiers by default, for the same reason; the papers' are `activation="sigmoid"`.
- The code is linear by default, as in 2006; `code_activation="relu"` gives the sparse code that the recipe classifies.
"""

import functools
import warnings

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from dmkeras.parts.checks import check_image_shape, check_images, check_shape, looks_at_first_batch

OBJECTIVES = ("cross_entropy", "squared_error")


@looks_at_first_batch
@keras.saving.register_keras_serializable("dmkeras")
class Autoencoder(keras.Model):
    """A fully connected autoencoder of pictures.

    Call: images `[B, H, W, C]` float32 in [0, 1]  ->  `[B, H, W, C]` float32: logits of the reconstruction under the
    cross-entropy objective, the reconstruction itself under squared error.

    | signature | inputs | outputs |
    | --- | --- | --- |
    | serving_default | images [B, H, W, C] float32 in [0, 1] | images [B, H, W, C] float32 in [0, 1] |
    | encode | images | z [B, Z] float32 |
    | decode | z [B, Z] float32 | images |

    Args:
        image_shape: (H, W, C) of one picture.
        latent_size: Z.
        hidden_size: units of the encoder's hidden layer, or a tuple of sizes, () for none; the decoder mirrors it.
        objective: `"cross_entropy"` or `"squared_error"`.
        noise: standard deviation, in [0, 1], of the Gaussian noise on the encoder's input in training; the loss
            compares with the clean picture.
        activation: of the hidden layers.   code_activation: of the code, None for linear.

    Raises:
        ValueError: for sizes below one, an unknown objective or noise outside [0, 1]; `fit`, `encode` and `decode`
            raise it for another shape, `fit` also for pixels outside [0, 1] under cross-entropy.
    """

    def __init__(
        self,
        image_shape=(28, 28, 1),
        latent_size=32,
        hidden_size=500,
        objective="cross_entropy",
        noise=0.0,
        activation="relu",
        code_activation=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        hidden = (hidden_size,) if np.ndim(hidden_size) == 0 else tuple(hidden_size)
        _check_arguments(image_shape, latent_size, hidden, objective, noise)
        self.image_shape = tuple(image_shape)
        self.latent_size = latent_size
        self.hidden_size = hidden_size if np.ndim(hidden_size) == 0 else hidden
        self.objective = objective
        self.noise = noise
        self.activation = activation
        self.code_activation = code_activation
        self.encoder = keras.Sequential(
            [
                layers.GaussianNoise(noise),
                layers.Flatten(),
                *(layers.Dense(units, activation) for units in hidden),
                layers.Dense(latent_size, code_activation),
            ],
            name="encoder",
        )
        self.decoder = keras.Sequential(
            [
                *(layers.Dense(units, activation) for units in reversed(hidden)),
                layers.Dense(int(np.prod(self.image_shape))),
                layers.Reshape(self.image_shape),
            ],
            name="decoder",
        )
        self(keras.Input(self.image_shape))

    def call(self, images, training=False):
        return tf.cast(self.decoder(self.encoder(images, training=training)), "float32")

    def encode(self, images):
        """images [B, H, W, C] in [0, 1] -> z [B, Z] float32, without noise."""
        check_shape("images", images, self.image_shape)
        return tf.cast(self.encoder(images, training=False), "float32")

    def decode(self, z):
        """z [B, Z] -> images [B, H, W, C] float32 in [0, 1]."""
        check_shape("z", z, (self.latent_size,))
        return self._images(self.decoder(z))

    def reconstruct(self, images):
        """images [B, H, W, C] in [0, 1] -> images [B, H, W, C] in [0, 1], rebuilt from their codes."""
        return self.decode(self.encode(images))

    def _images(self, outputs):
        outputs = tf.cast(outputs, "float32")
        return tf.sigmoid(outputs) if self.objective == "cross_entropy" else tf.clip_by_value(outputs, 0.0, 1.0)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The objective against the clean pictures `x`, averaged over the batch; `y` is not used."""
        x = tf.cast(x, "float32")
        if self.objective == "cross_entropy":
            pixel = tf.nn.sigmoid_cross_entropy_with_logits(labels=x, logits=y_pred)
        else:
            pixel = tf.square(x - y_pred)
        weight = 1.0 if sample_weight is None else tf.cast(sample_weight, "float32")
        return tf.reduce_mean(weight * tf.reduce_sum(pixel, axis=(1, 2, 3)))

    def check_images(self, images):
        check = check_images if self.objective == "cross_entropy" else functools.partial(check_shape, "images")
        check(images, self.image_shape)

    def signatures(self):
        images = tf.TensorSpec((None, *self.image_shape), "float32", name="images")
        z = tf.TensorSpec((None, self.latent_size), "float32", name="z")
        return {
            "serving_default": (lambda images: {"images": self.reconstruct(images)}, [images]),
            "encode": (lambda images: {"z": self.encode(images)}, [images]),
            "decode": (lambda z: {"images": self.decode(z)}, [z]),
        }

    def get_config(self):
        return {
            **super().get_config(),
            "image_shape": self.image_shape,
            "latent_size": self.latent_size,
            "hidden_size": self.hidden_size,
            "objective": self.objective,
            "noise": self.noise,
            "activation": self.activation,
            "code_activation": self.code_activation,
        }


def linear_probe(features, labels, numbers=(None,), num_draws=20, seed=0, strengths=(0.01, 0.1, 1, 10, 100)):
    """What a linear classifier makes of features when few of the training pictures have labels.

    Multinomial logistic regression (scikit-learn, at most 100 L-BFGS steps) on features minus their training mean and
    divided by one number, the root of their mean training variance (to whiten them would favour noise). A draw labels
    some training pictures, of all classes equally many as far as that goes; draws depend on `seed` and the training
    labels alone, so that features are compared on the same ones. The inverse L2 penalty C is the one of `strengths`
    with the best mean validation accuracy over the draws.

    Args:
        features: {"train", "validation", "test": [N, F]}.
        labels: {"train", "validation", "test": [N]}, integers.
        numbers: how many training pictures have labels, one after the other; None for all of them.
        num_draws: for numbers up to 300; 5 up to 1000 and 1 above, where draws differ little. All labels are one draw.
        seed: of the draws.
        strengths: values of C to choose from.

    Returns:
        Three lists: the numbers, mean test accuracies, their standard errors over the draws (0 for a single draw).

    Raises:
        ValueError: for fewer labels than classes, or more than there are.
    """
    mean = np.mean(features["train"], axis=0, dtype="float64")
    scale = np.sqrt(np.var(features["train"], axis=0, dtype="float64").mean()) or 1.0
    scaled = {split: ((x - mean) / scale).astype("float32") for split, x in features.items()}
    numbers = [len(labels["train"]) if number is None else number for number in numbers]
    means, errors = [], []
    for number in numbers:
        count = min(num_draws, 5 if number > 300 else num_draws, 1 if number > 1000 else num_draws)
        draws = _label_draws(labels["train"], number, count, seed)
        scores = np.array([_accuracies(scaled, labels, draws, strength) for strength in strengths])  # [C, 2, draws]
        found = scores[scores[:, 0].mean(axis=1).argmax(), 1]
        means.append(float(found.mean()))
        errors.append(float(found.std(ddof=1) / len(found) ** 0.5) if len(found) > 1 else 0.0)
    return numbers, means, errors


def _accuracies(features, labels, draws, strength):
    """Validation and test accuracies [2, draws] of classifiers that have seen the labels of one draw each."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    scores = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # to stop early is part of the protocol
        for draw in draws:
            model = LogisticRegression(C=strength, max_iter=100).fit(features["train"][draw], labels["train"][draw])
            scores.append([model.score(features[split], labels[split]) for split in ("validation", "test")])
    return np.transpose(scores)


def _label_draws(labels, number, num_draws, seed):
    """Indices of the labelled pictures of each draw: the first of a random order that takes the classes in turn."""
    classes = np.unique(labels)
    if not len(classes) <= number <= len(labels):
        raise ValueError(
            f"linear_probe: received {number} labels, expected from {len(classes)}, the classes, to {len(labels)}"
        )
    if number == len(labels):
        return [np.arange(number)]
    generator, draws = np.random.default_rng(seed), []
    for _ in range(num_draws):
        order = generator.permutation(len(labels))
        member = labels[order, None] == classes  # [N, classes]
        turn = np.cumsum(member, axis=0)[member]  # 1 for the first picture of its class, 2 for the second, ...
        draws.append(order[np.argsort(turn, kind="stable")][:number])
    return draws


def _check_arguments(image_shape, latent_size, hidden, objective, noise):
    whole = lambda sizes: all(isinstance(size, (int, np.integer)) and size >= 1 for size in sizes)
    check_image_shape(image_shape)
    if not whole((latent_size, *hidden)):
        raise ValueError(
            f"sizes must be whole numbers of at least 1, received latent_size={latent_size}, hidden_size={hidden}"
        )
    if objective not in OBJECTIVES:
        raise ValueError(f"objective must be one of {', '.join(OBJECTIVES)}; received {objective!r}")
    if not 0 <= noise <= 1:
        raise ValueError(f"noise must be in [0, 1], the standard deviation in units of the pixels; received {noise}")
