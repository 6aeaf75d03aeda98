"""Why the generator's objective is "non_saturating": the gradients of both where the discriminator is sure.

    python -m benchmarks.gan_objectives --out docs/gan_objectives.png      seconds on one core

Left, what a logit a of a generated picture receives, |d loss / d a|, over D(G(z)) = sigmoid(a), by automatic
differentiation of `dmkeras.parts.adversarial.generator_loss`: where D is sure, D(G(z)) ~ 0, log(1 - D(G(z))) of the
minimax game gives nothing and -log D(G(z)) gives most (Goodfellow et al. 2014, section 3,
https://arxiv.org/abs/1406.2661).

Right, the same in a network, after Arjovsky and Bottou 2017 (https://arxiv.org/abs/1701.04862), figures 2 and 3: the
recipe's GAN on digits, G as it was initialised and not moved, D trained alone by the recipe's optimizer. After so many
steps of D, the norm of the gradient that all weights of G together would receive in their next step, D's dropout
included, and the mean of D(G(z)); medians over seeds. Theorem 2.4 of that paper bounds the first by how far D is from a
perfect one; figure 3 finds the second to grow, and its variance with it.
"""

import argparse
import os

import keras
import numpy as np
import tensorflow as tf

import dmkeras
from dmkeras import figures
from dmkeras.data import batches, load, to_arrays
from dmkeras.parts import adversarial, latents
from training.gan import DEFAULTS

STEPS = (0, 1, 3, 10, 30, 100, 300)
LATENTS = 1000  # a gradient is that of so many pictures


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="docs/gan_objectives.png", help="the PNG to write")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    arguments = parser.parse_args()
    if os.path.exists(arguments.out):
        parser.error(f"{arguments.out} exists and is not overwritten")
    images = to_arrays(load("digits", "train"))["image"]
    runs = {name: np.array(values) for name, values in measured(images, arguments.seeds).items()}
    report(runs)
    print(figures.save(arguments.out, picture(runs)))


def gradient_of_logit(objective, chances):
    """|d loss / d logit| of one picture with each of `chances` D(G(z)), [N]."""
    logits = tf.constant(np.log(chances / (1 - chances)))
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = adversarial.generator_loss(logits, objective) * len(chances)  # the loss is a mean
    return np.abs(tape.gradient(loss, logits))


def measured(images, seeds):
    """{objective or "D(G(z))": [[figure after each of STEPS] for each seed]}."""
    found = {name: [] for name in (*adversarial.OBJECTIVES, "D(G(z))")}
    for seed in seeds:
        for name, values in against_a_trained_discriminator(images, seed).items():
            found[name].append(values)
    return found


def against_a_trained_discriminator(images, seed):
    """{objective or "D(G(z))": [figure after each of STEPS]} of one G and its D."""
    keras.utils.set_random_seed(seed)
    latent_size, hidden_size, maxout_units, _, batch_size, rate = DEFAULTS["digits"]
    model = dmkeras.GAN(images.shape[1:], latent_size, hidden_size, maxout_units)
    optimizer = keras.optimizers.SGD(rate, momentum=0.5)
    optimizer.build(model.discriminator.trainable_variables)
    step, gradients = tf.function(lambda real: step_of_d(model, optimizer, real)), tf.function(received)
    stream = iter(batches(images, batch_size, seed).repeat())
    found = {name: [] for name in (*adversarial.OBJECTIVES, "D(G(z))")}
    for done in range(max(STEPS) + 1):
        if done in STEPS:
            for name, value in gradients(model).items():
                found[name].append(float(value))
        step(next(stream))
    return found


def step_of_d(model, optimizer, real):
    """The first half of `adversarial.train_step`."""
    fake = model.generator(latents.draw(model, tf.shape(real)[0]), training=True)
    variables = model.discriminator.trainable_variables
    with tf.GradientTape() as tape:
        loss = adversarial.discriminator_loss(*(model.discriminator(x, training=True) for x in (real, fake)))
    optimizer.apply(tape.gradient(loss, variables), variables)


def received(model):
    """The norm of G's gradient under each objective, of the same pictures and dropout, and the mean of D(G(z))."""
    variables = model.generator.trainable_variables
    with tf.GradientTape(persistent=True) as tape:
        logits = model.discriminator(model.generator(latents.draw(model, LATENTS), training=True), training=True)
        losses = {objective: adversarial.generator_loss(logits, objective) for objective in adversarial.OBJECTIVES}
    norms = {objective: tf.linalg.global_norm(tape.gradient(loss, variables)) for objective, loss in losses.items()}
    return {**norms, "D(G(z))": tf.reduce_mean(tf.sigmoid(logits))}


def report(runs):
    print("| steps of D alone | mean D(G(z)) | gradient of G, non-saturating | gradient of G, minimax | ratio |")
    print("| --- | --- | --- | --- | --- |")
    ratio = runs["non_saturating"] / runs["minimax"]
    for place, done in enumerate(STEPS):
        cells = [
            middle(values[:, place]) for values in (runs["D(G(z))"], *map(runs.get, adversarial.OBJECTIVES), ratio)
        ]
        print(f"| {done} | {' | '.join(cells)} |")


def middle(values):
    """Median and range over seeds."""
    return f"{np.median(values):.3g} ({values.min():.3g} to {values.max():.3g})"


def picture(runs):
    """Both panels side by side, uint8 [H, W, 3]."""
    chances = 1 / (1 + np.exp(-np.linspace(np.log(1e-4), np.log(99), 200)))  # 0.0001 to 0.99
    axes = {"log_x": True, "log_y": True}
    labels = {objective: objective.replace("_", "-") for objective in adversarial.OBJECTIVES}
    logits = {label: (chances, gradient_of_logit(objective, chances)) for objective, label in labels.items()}
    labels["D(G(z))"] = "mean D(G(z))"
    weights = {label: (STEPS, np.median(runs[name], axis=0)) for name, label in labels.items()}
    panels = [
        figures.curves(
            logits,
            title="what a logit receives: nothing in the minimax game where D is sure",
            x_label="D(G(z))",
            y_label="|d loss / d logit|",
            **axes,
        ),
        figures.curves(
            weights,
            title="what G's weights receive while D alone learns",
            x_label="steps of D against G as initialised",
            y_label="norm of the gradient; D(G(z))",
            **axes,
        ),
    ]
    return np.concatenate(panels, axis=1)


if __name__ == "__main__":
    main()
