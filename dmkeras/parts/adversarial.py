"""What systems of a generator G and a discriminator D have in common: the game, two optimizers, a step of each.

    D:  max_D  E log D(x) + E log(1 - D(G(z)))                      Goodfellow et al. 2014, eq. 1
    G:  min_G  E log(1 - D(G(z)))      objective "minimax"          eq. 1
        max_G  E log D(G(z))           objective "non_saturating"   section 3: a gradient where D is sure, D(G(z)) ~ 0

D is sigmoid(a) of its logit a: log D = -softplus(-a), log(1 - D) = -softplus(a). Probabilities are never computed.

A step of training is a step of D, then one of G against the moved D, on fresh latents (algorithm 1 with k = 1).
Pictures of the data and of G go through D as batches of their own, each with its own batch statistics. What belongs to
the network that is not stepped stays as it was, moving statistics too. With `average` > 0 a second generator follows G,
its weights an exponential moving average of G's, and draws the pictures (parts/latents.py).

Shapes:  B batch, H height, W width, C colours, Z latent size.
"""

import contextlib
import functools

import keras
import tensorflow as tf

from dmkeras.parts import latents
from dmkeras.parts.checks import looks_at_first_batch, number
from dmkeras.parts.collapse import Watch, relative_diversity
from dmkeras.parts.seeds import row_seeds

OBJECTIVES = ("non_saturating", "minimax")


def discriminator_loss(real, fake):
    """-E log D(x) - E log(1 - D(G(z))), nats, from logits of both."""
    return tf.reduce_mean(tf.nn.softplus(-real)) + tf.reduce_mean(tf.nn.softplus(fake))


def generator_loss(fake, objective="non_saturating"):
    """-E log D(G(z)), or E log(1 - D(G(z))) for "minimax", nats, from logits."""
    return tf.reduce_mean(tf.nn.softplus(-fake) if objective == "non_saturating" else -tf.nn.softplus(fake))


# --- a model of two networks ----------------------------------------------------------------------------------------


def two_networks(model):
    """A class decorator: two optimizers that survive save and reload, and `fit` that says when training collapses.

    `compile(d_optimizer, g_optimizer, **options)`: for None stands the class's own of `optimizers()`. ValueError for
    one instance for both, whose moments would mix, and for `optimizer`; `fit` raises it for weights of samples.
    """

    def compile(self, d_optimizer=None, g_optimizer=None, **options):
        if "optimizer" in options or (d_optimizer is g_optimizer and isinstance(d_optimizer, keras.Optimizer)):
            raise ValueError("expected d_optimizer and g_optimizer, two instances or names, received one for both")
        own = self.optimizers()
        given = [keras.optimizers.get(g or o) for g, o in zip((d_optimizer, g_optimizer), own)]
        if self.dtype_policy.name == "mixed_float16":
            scaled = keras.optimizers.LossScaleOptimizer
            given = [g if isinstance(g, scaled) else scaled(g) for g in given]
        keras.Model.compile(self, optimizer=None, **options)
        self.d_optimizer, self.g_optimizer = given
        self.d_optimizer.build(self.discriminator.trainable_variables)
        self.g_optimizer.build(self.generator.trainable_variables)
        self._compiled_with = options

    def get_compile_config(self):
        if not self.compiled:
            return None
        optimizers = {"d_optimizer": self.d_optimizer, "g_optimizer": self.g_optimizer}
        return keras.saving.serialize_keras_object({**optimizers, **self._compiled_with})

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(config))

    model.compile, model.get_compile_config, model.compile_from_config = (
        compile,
        get_compile_config,
        compile_from_config,
    )
    looks_at_first_batch(model)
    fit = model.fit

    @functools.wraps(fit)
    def watched_fit(self, *args, callbacks=None, **kwargs):
        if any(kwargs.get(name) is not None for name in ("sample_weight", "class_weight")):
            raise ValueError("expected pictures that count alike, received weights of samples; repeat pictures instead")
        if not isinstance(callbacks, keras.callbacks.CallbackList):
            callbacks = [*keras.tree.flatten(callbacks or []), Watch()]
        return fit(self, *args, callbacks=callbacks, **kwargs)

    model.fit = watched_fit
    return model


def equip(model, generator, discriminator, objective, average):
    """Gives a model its two networks, which are built, and what training needs. ValueError for bad options."""
    if objective not in OBJECTIVES:
        raise ValueError(f"objective must be one of {', '.join(OBJECTIVES)}; received {objective!r}")
    model.generator, model.discriminator = generator, discriminator
    model.objective, model.average = objective, number("average", average, below=1)
    model.averaged = keras.models.clone_model(generator) if average else None
    if average:
        model.averaged.name, model.averaged.trainable = "averaged", False
        model.averaged.set_weights(generator.get_weights())
    model.noise = keras.random.SeedGenerator()
    model.trackers = [keras.metrics.Mean(name=name) for name in ("d_loss", "g_loss", "diversity")]


def halvings(image_shape):
    """How often both sides are halved while they stay above 7, and what is left: (N, (H / 2^N, W / 2^N))."""
    sides, stages = image_shape[:2], 0
    while min(sides) > 7 and not any(side % 2 for side in sides):
        sides, stages = tuple(side // 2 for side in sides), stages + 1
    if not stages:
        raise ValueError(f"image_shape needs even sides above 7, received {image_shape}; resize or pad the pictures")
    return stages, sides


def train_step(model, data):
    """A step of D and a step of G; -> the metrics. Labels beside the images are not used."""
    images, *_ = keras.utils.unpack_x_y_sample_weight(data)
    count = tf.shape(images)[0]
    with kept(model.generator):
        fake = model.generator(latents.draw(model, count), training=True)
    variables = model.discriminator.trainable_variables
    with tf.GradientTape() as tape:
        real_logits, fake_logits = (model.discriminator(x, training=True) for x in (images, fake))
        d_loss = discriminator_loss(real_logits, fake_logits)
        scaled = model.d_optimizer.scale_loss(d_loss + penalties(model.discriminator))
    model.d_optimizer.apply(tape.gradient(scaled, variables), variables)
    variables = model.generator.trainable_variables
    with kept(model.discriminator), tf.GradientTape() as tape:
        fake = model.generator(latents.draw(model, count), training=True)
        g_loss = generator_loss(model.discriminator(fake, training=True), model.objective)
        scaled = model.g_optimizer.scale_loss(g_loss + penalties(model.generator))
    model.g_optimizer.apply(tape.gradient(scaled, variables), variables)
    follow(model)
    return tracked(model, count, d_loss, g_loss, relative_diversity(fake, images))


def test_step(model, data):
    """The same losses of networks that stay as they are, on latents that are the same for each batch."""
    images, *_ = keras.utils.unpack_x_y_sample_weight(data)
    count = tf.shape(images)[0]
    fake = latents.generate(model, latents.latent(model, row_seeds(count, 0)))
    real_logits, fake_logits = (model.discriminator(x, training=False) for x in (images, fake))
    losses = discriminator_loss(real_logits, fake_logits), generator_loss(fake_logits, model.objective)
    return tracked(model, count, *losses, relative_diversity(fake, images))


def tracked(model, count, *values):
    """{name: mean so far} with these means over `count` pictures."""
    for tracker, value in zip(model.trackers, values, strict=True):
        tracker.update_state(value, tf.cast(count, "float32"))
    return {tracker.name: tracker.result() for tracker in model.trackers}


def penalties(network):
    return tf.add_n([tf.cast(loss, "float32") for loss in network.losses]) if network.losses else 0.0


def follow(model):
    """A step of the averaged generator, whose moving statistics follow too."""
    if model.average:
        for mean, weight in zip(model.averaged.weights, model.generator.weights, strict=True):
            mean.assign(model.average * mean + (1 - model.average) * weight)


@contextlib.contextmanager
def kept(network):
    """Puts back what calls in training move of a network that is not trained: its moving statistics."""
    before = [(weight, tf.identity(weight)) for weight in network.non_trainable_weights]
    yield
    for weight, value in before:
        weight.assign(value)
