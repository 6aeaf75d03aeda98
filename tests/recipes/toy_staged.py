"""A recipe of three stages: the body, then the head with another optimizer, then a bias that no gradient sets."""

import keras
import numpy as np

from dmkeras.recipe import Recipe, run
from tests.recipes.toy_one import Toy, dataset, evaluate, picture


def recipe(epochs=3, batch_size=80):
    """A regression in stages."""
    data = dataset(batch_size)

    def train_body(recipe, fit):
        print("stage of the body", flush=True)
        recipe.model.head.trainable = False
        recipe.model.head.kernel.assign(np.random.normal(size=recipe.model.head.kernel.shape))
        fit()

    def train_head(recipe, fit):
        print("stage of the head", flush=True)
        recipe.model.body.trainable = False
        recipe.model.head.kernel.assign(0.1 * np.random.normal(size=recipe.model.head.kernel.shape))
        fit(epochs=epochs + 1, compile={"optimizer": keras.optimizers.SGD(0.05, momentum=0.9)})

    def centre(recipe, fit):
        print("stage of the bias", flush=True)
        error = np.concatenate([y - recipe.model(x) for x, y in data("train", 0)])
        recipe.model.head.bias.assign_add(error.mean(axis=0))

    return Recipe(
        "toy_staged",
        Toy(),
        data,
        compile={"optimizer": keras.optimizers.Adam(0.01), "metrics": ["mse"]},
        epochs=epochs,
        stages=[("body", train_body), ("head", train_head), ("bias", centre)],
        evaluate=evaluate(data),
        pictures=picture,
    )


if __name__ == "__main__":
    run(recipe)
