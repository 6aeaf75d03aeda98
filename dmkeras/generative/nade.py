"""The neural autoregressive distribution estimator (Larochelle and Murray, 2011,
https://proceedings.mlr.press/v15/larochelle11a; Uria et al., 2016, https://arxiv.org/abs/1605.02226, section 2).

    p(x) = prod_d p(x_d | x_<d)                     the chain rule, exact
    a_1 = c,  a_{d+1} = a_d + W_d x_d               what the hidden units have summed up, O(H) a pixel
    h_d = sigmoid(a_d)                              one hidden layer for each pixel, all of one matrix W
    logit p(x_d=1|x_<d) = b_d + V_d . h_d           O(D H) a picture in training as in drawing

Shapes:  B batch, H height, W width, C colours, D = H W C values of a picture, numbered in the model's ordering,
         U hidden units, K pixels of a block, N = D / K blocks, S hidden states of a block.

How the recurrence is computed (`hidden_logits`): pixels are 0 or 1, and after a 0 the hidden state is the one before.
A picture has one state for each pixel that is 1 (one of eight on MNIST) instead of D. In each block of K pixels the S
states of all pictures stand in one matrix, and a = carried over + (pixels before, in the block) W_block, h V_block^T
and their gradients are matrix products. The reverse pass is written by hand: it goes through the blocks backwards and
makes their states again instead of keeping them.

Deviations from the papers, each with its reason:
- Biases b start (after `adapt`) at the logits of the pixels' means, as in the authors' later code.
- The default ordering is raster: completions of half pictures read top to bottom. `"random"` is the 2011 paper's.
- Probabilities are not kept off 0 and 1 (the authors' code saturates them): likelihoods are of logits.
- Weight decay, learning rate and early stopping are the trainer's.
"""

import keras
import numpy as np
import tensorflow as tf

from dmkeras.parts import explicit_density, pixel_order
from dmkeras.parts.checks import looks_at_first_batch

BLOCK = 16  # pixels: fewer make more steps of the loop, more make more products by zero


@keras.saving.register_keras_serializable("dmkeras")
@looks_at_first_batch
class NADE(keras.Model):
    """Binary pictures, pixel after pixel through one hidden layer that is carried along.

    Call: images `[B, H, W, C]` float32 in {0, 1}  ->  logits `[B, H, W, C]` of p(x_d = 1 | x_<d). No gradient
    reaches the images: they are data. XLA cannot compile it, for the number of states depends on the pictures.

    `adapt(images)` before `fit` starts it at independent pixels.

    | signature | inputs | outputs |
    | --- | --- | --- |
    | serving_default | images [B, H, W, C] float32 in {0, 1} | log_prob [B], nats, exact; -inf of other values |
    | log_prob | images | log_prob [B], the same |
    | sample | seed [B, 2] int32, one row per answer | images [B, H, W, C], log_prob [B] |
    | complete | images, known_mask [B, H, W, 1] float32 (> 0.5 = given), seed | images, log_prob |

    Args:
        image_shape: (H, W, C) of one image.
        hidden_size: U.
        ordering: of the pixels: `"raster"`, `"column"`, `"spiral"`, `"random"`, `"random:SEED"` or a permutation of the
            D values; see `dmkeras.parts.pixel_order`.

    Raises:
        ValueError: for a shape or an ordering that is none; `fit`, `evaluate`, `log_prob`, `complete` and `adapt` raise
            it for images of another shape or values other than 0 and 1.
    """

    levels = 2

    def __init__(self, image_shape=(28, 28, 1), hidden_size=500, ordering="raster", **kwargs):
        super().__init__(**kwargs)
        self.order = pixel_order.permutation(ordering, image_shape)
        if not isinstance(hidden_size, int) or hidden_size < 1:
            raise ValueError(f"hidden_size must be a whole number, at least 1; received {hidden_size}")
        self.image_shape = tuple(image_shape)
        self.hidden_size = hidden_size
        self.ordering = ordering if isinstance(ordering, str) else tuple(self.order.tolist())
        self.supports_jit = False
        size, small = len(self.order), keras.initializers.RandomNormal(stddev=0.01)
        # float32 under any policy: a and the logits sum hundreds of terms. Rows stand in the model's ordering.
        add = lambda name, shape, start: self.add_weight(shape, start, "float32", name=name, autocast=False)
        self.input_kernel = add("input_kernel", (size, hidden_size), small)  # W
        self.hidden_bias = add("hidden_bias", (hidden_size,), "zeros")  # c
        self.output_kernel = add("output_kernel", (size, hidden_size), small)  # V
        self.bias = add("bias", (size,), "zeros")  # b
        self.trackers = explicit_density.trackers()
        self(keras.Input(self.image_shape))

    def call(self, images):
        x = pixel_order.flatten(images, self.order)
        weights = map(tf.convert_to_tensor, (self.input_kernel, self.output_kernel, self.hidden_bias))
        return pixel_order.unflatten(hidden_logits(x, *weights) + self.bias, self.order, self.image_shape)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Mean -log p(x), nats per image."""
        return explicit_density.loss(self, y_pred, x, sample_weight)

    def _draw(self, images, known, uniform):
        w, v, c, b = map(tf.convert_to_tensor, (self.input_kernel, self.output_kernel, self.hidden_bias, self.bias))
        logits_at = lambda a, d: b[d] + tf.linalg.matvec(tf.sigmoid(a), v[d])
        add = lambda a, d, values: a + values[:, None] * w[d]
        a = tf.tile(c[None], (tf.shape(images)[0], 1))
        return pixel_order.draw_in_order(self.order, images, known, uniform, logits_at, a, add)

    def log_prob(self, images):
        """Exact log p(x) of images [B, H, W, C] in {0, 1} -> [B] float32, nats; no gradient reaches the images."""
        return explicit_density.log_prob(self, tf.stop_gradient(images) if tf.is_tensor(images) else images)

    def sample(self, num_samples, seed=None):
        """Draws of p(x), [num_samples, H, W, C] float32; an integer `seed` gives the same again."""
        return explicit_density.sample(self, num_samples, seed)

    def complete(self, images, known_mask, seed=None):
        """`images` [B, H, W, C] where known_mask [B, H, W, 1] or [H, W, 1] is 1, draws given those before elsewhere.

        A pixel is drawn given the earlier ones of the ordering: later given pixels stay, and do not bear on it.
        """
        return explicit_density.complete(self, images, known_mask, seed)

    def adapt(self, images):
        """Starts b at the logit of each pixel's mean in `images` [N, H, W, C]."""
        self.check_images(images)
        self.bias.assign(pixel_order.marginal_logits(images, self.order))

    def check_images(self, images):
        """ValueError unless `images` is [B, H, W, C] of zeros and ones."""
        explicit_density.check_pixels(images, self.image_shape, self.levels)

    def signatures(self):
        return explicit_density.signatures(self)

    def get_config(self):
        own = {"image_shape": self.image_shape, "hidden_size": self.hidden_size, "ordering": self.ordering}
        return {**super().get_config(), **own}


# --- the recurrence -------------------------------------------------------------------------------------------------


def hidden_logits(x, w, v, c, block=BLOCK):
    """V_d . h_d of every pixel, the recurrence of the module's docstring, with a gradient written by hand.

    Args:
        x: [B, D], pixels in order; right for any values, quick where most are 0. No gradient reaches them.
        w: [D, U], differentiable.
        v: [D, U], differentiable.
        c: [U], differentiable.
        block: K, changes time and memory alone; the last block is filled up with pixels that are 0.

    Returns:
        [B, D].
    """
    size, hidden = w.shape
    block = min(block, size)
    count = -(-size // block)
    missing = count * block - size
    row_blocks = lambda rows: tf.reshape(tf.pad(rows, [[0, missing], [0, 0]]), (count, block, hidden))
    pixel_blocks = lambda x: tf.transpose(tf.reshape(tf.pad(x, [[0, 0], [0, missing]]), (-1, count, block)), (1, 0, 2))
    array = lambda shape: tf.TensorArray(w.dtype, count, element_shape=shape)
    xs = pixel_blocks(x)  # [N, B, K]

    def hidden_states(n, a, ws):
        """The states of block n, which begins at a [B, U]: h [S, U] and what `_states` tells of them."""
        picture, before, seen = _states(xs[n])
        return tf.sigmoid(tf.gather(a, picture) + tf.matmul(before, ws[n])), picture, before, seen

    @tf.custom_gradient
    def all_blocks(w, v, c):
        ws, vs = row_blocks(w), row_blocks(v)  # [N, K, U]

        def forward(n, a, logits):
            h, picture, _, seen = hidden_states(n, a, ws)
            mine = tf.math.segment_sum(seen * tf.matmul(h, vs[n], transpose_b=True), picture)
            return n + 1, a + tf.matmul(xs[n], ws[n]), logits.write(n, mine)

        start = tf.tile(c[None], (tf.shape(x)[0], 1))
        _, _, logits = tf.while_loop(lambda n, *_: n < count, forward, (0, start, array((None, block))))
        logits = tf.reshape(tf.transpose(logits.stack(), (1, 0, 2)), (-1, count * block))[:, :size]

        def backward(upstream):
            upstreams = pixel_blocks(upstream)
            keep = lambda n, a, starts: (n + 1, a + tf.matmul(xs[n], ws[n]), starts.write(n, a))
            starts = tf.while_loop(lambda n, *_: n < count, keep, (0, start, array((None, hidden))))[2]

            def step(n, later, w_gradient, v_gradient):
                """`later` [B, U]: the gradient for a of the blocks behind, which every pixel of this one feeds."""
                h, picture, before, seen = hidden_states(n, starts.read(n), ws)
                g = seen * tf.gather(upstreams[n], picture)  # [S, K]
                a_gradient = tf.raw_ops.SigmoidGrad(y=h, dy=tf.matmul(g, vs[n]))  # [S, U]: dy h (1 - h)
                of_w = tf.matmul(before, a_gradient, transpose_a=True) + tf.matmul(xs[n], later, transpose_a=True)
                of_v = tf.matmul(g, h, transpose_a=True)
                later += tf.math.segment_sum(a_gradient, picture)
                return n - 1, later, w_gradient.write(n, of_w), v_gradient.write(n, of_v)

            arrays = array((block, hidden)), array((block, hidden))
            loop = tf.while_loop(lambda n, *_: n >= 0, step, (count - 1, tf.zeros_like(start), *arrays))
            rows = lambda gradient: tf.reshape(gradient.stack(), (-1, hidden))[:size]
            return rows(loop[2]), rows(loop[3]), tf.reduce_sum(loop[1], axis=0)

        return logits, backward

    return all_blocks(w, v, c)


def _states(x):
    """The hidden states of a block of pixels x [B, K]: one at its first pixel, one behind each that is not 0.

    Returns:
        picture: [S], rising, the row of x that a state belongs to.
        before: [S, K], the pixels of that row before the state, 0 from there on.
        seen: [S, K], 1 where the state is the one that a pixel's logit is made of.
    """
    place = np.arange(x.shape[1], dtype="int64")
    new = tf.concat([tf.ones_like(x[:, :1], "bool"), x[:, :-1] != 0], axis=1)
    picture, begin = tf.unstack(tf.where(new), axis=1)
    next_picture, next_begin = tf.roll(picture, -1, 0), tf.roll(begin, -1, 0)
    end = tf.where((next_picture == picture) & (next_begin > begin), next_begin, len(place))
    begin, end = begin[:, None], end[:, None]
    before = tf.gather(x, picture) * tf.cast(place < begin, x.dtype)
    return picture, before, tf.cast((begin <= place) & (place < end), x.dtype)
