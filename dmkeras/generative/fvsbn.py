"""Fully visible sigmoid belief network (Neal, 1992, Connectionist Learning of Belief Networks,
https://doi.org/10.1016/0004-3702%2892%2990065-6; Frey, 1998, Graphical Models for Machine Learning, chapter 3).

    p(x)                = prod_d p(x_d | x_<d)                            the chain rule, exact
    logit p(x_d=1|x_<d) = b_d + sum_{k<d} A_kd x_k                        one logistic regression per pixel

All regressions at once are one product with a strictly triangular matrix. Pixels are numbered in the model's ordering.
-log p(x) is convex in A and b, so that training finds the one minimum from any start.

    drawing: z = b;  for d = 1 .. D:  x_d ~ Bernoulli(sigmoid(z_d)),  z += A_d: x_d        O(D) a pixel

Shapes:  B batch, H height, W width, C colours, D = H W C values of a picture.

Deviations from the source, each with its reason:
- Weights start at zero, biases (after `adapt`) at the logits of the pixels' means: the solution for A = 0.
- Training may add l1 sum |A_kd| to the mean of -log p(x): a Laplace prior of scale 1 / (l1 N) on the weights, for N
  training pictures. Most of the D (D - 1) / 2 weights join distant pixels and are best near zero. The sum stays convex.
"""

import numbers

import keras
import tensorflow as tf

from dmkeras.parts import explicit_density, pixel_order
from dmkeras.parts.checks import looks_at_first_batch


@keras.saving.register_keras_serializable("dmkeras")
@looks_at_first_batch
class FVSBN(keras.Model):
    """Binary pictures, each pixel by a logistic regression on those before it.

    Call: images `[B, H, W, C]` float32 in {0, 1}  ->  logits `[B, H, W, C]` of p(x_d = 1 | x_<d).

    `adapt(images)` before `fit` starts it at independent pixels.

    | signature | inputs | outputs |
    | --- | --- | --- |
    | serving_default | images [B, H, W, C] float32 in {0, 1} | log_prob [B], nats, exact; -inf of other values |
    | log_prob | images | log_prob [B], the same |
    | sample | seed [B, 2] int32, one row per answer | images [B, H, W, C], log_prob [B] |
    | complete | images, known_mask [B, H, W, 1] float32 (> 0.5 = given), seed | images, log_prob |

    Args:
        image_shape: (H, W, C) of one image.
        ordering: of the pixels: `"raster"`, `"column"`, `"spiral"`, `"random"`, `"random:SEED"` or a permutation of the
            D values; see `dmkeras.parts.pixel_order`.
        l1: strength of the penalty on |A| in training; the metrics are without it.

    Raises:
        ValueError: for a shape or an ordering that is none, or a negative l1; `fit`, `evaluate`, `log_prob`, `complete`
            and `adapt` raise it for images of another shape or values other than 0 and 1.
    """

    levels = 2

    def __init__(self, image_shape=(28, 28, 1), ordering="raster", l1=0.0, **kwargs):
        super().__init__(**kwargs)
        if not isinstance(l1, numbers.Real) or not 0 <= l1 < float("inf"):
            raise ValueError(f"l1 must be a number of at least 0, received {l1!r}")
        self.l1 = l1
        self.order = pixel_order.permutation(ordering, image_shape)
        self.image_shape = tuple(image_shape)
        self.ordering = ordering if isinstance(ordering, str) else tuple(self.order.tolist())
        size = len(self.order)
        # float32 under any policy: a logit sums hundreds of terms. Row k holds what pixel k adds to those after it.
        self.kernel = self.add_weight((size, size), "zeros", name="kernel", autocast=False, dtype="float32")
        self.bias = self.add_weight((size,), "zeros", name="bias", autocast=False, dtype="float32")
        self.trackers = explicit_density.trackers()
        self(keras.Input(self.image_shape))

    def _strict_kernel(self):
        """A, zero where k >= d: an entry less itself is zero exactly."""
        return self.kernel - tf.linalg.band_part(self.kernel, -1, 0)

    def call(self, images):
        x = pixel_order.flatten(images, self.order)
        return pixel_order.unflatten(tf.matmul(x, self._strict_kernel()) + self.bias, self.order, self.image_shape)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Mean -log p(x), nats per image, and the penalty."""
        nats = explicit_density.loss(self, y_pred, x, sample_weight)
        return nats + self.l1 * tf.reduce_sum(tf.abs(self._strict_kernel()))

    def _draw(self, images, known, uniform):
        rows = self._strict_kernel()
        logits = tf.tile(tf.convert_to_tensor(self.bias)[:, None], (1, tf.shape(images)[0]))  # [D, B]
        add = lambda logits, d, values: logits + rows[d][:, None] * values
        return pixel_order.draw_in_order(self.order, images, known, uniform, lambda logits, d: logits[d], logits, add)

    def log_prob(self, images):
        """Exact log p(x) of images [B, H, W, C] in {0, 1} -> [B] float32, nats."""
        return explicit_density.log_prob(self, images)

    def sample(self, num_samples, seed=None):
        """Draws of p(x), [num_samples, H, W, C] float32; an integer `seed` gives the same again."""
        return explicit_density.sample(self, num_samples, seed)

    def complete(self, images, known_mask, seed=None):
        """`images` [B, H, W, C] where known_mask [B, H, W, 1] or [H, W, 1] is 1, draws given those before elsewhere.

        A pixel is drawn given the earlier ones of the ordering: later given pixels stay, and do not bear on it.
        """
        return explicit_density.complete(self, images, known_mask, seed)

    def adapt(self, images):
        """Starts the biases at the logit of each pixel's mean in `images` [N, H, W, C]: independent pixels."""
        self.check_images(images)
        self.bias.assign(pixel_order.marginal_logits(images, self.order))

    def check_images(self, images):
        """ValueError unless `images` is [B, H, W, C] of zeros and ones."""
        explicit_density.check_pixels(images, self.image_shape, self.levels)

    def signatures(self):
        return explicit_density.signatures(self)

    def get_config(self):
        return {**super().get_config(), "image_shape": self.image_shape, "ordering": self.ordering, "l1": self.l1}
