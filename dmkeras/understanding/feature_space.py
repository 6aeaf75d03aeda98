"""Feature space: which pictures are near one another for a layer of a classifier.

Krizhevsky, Sutskever and Hinton, "ImageNet Classification with Deep Convolutional Neural Networks", NIPS 2012
(https://doi.org/10.1145/3065386), section 6.1 and figure 4; maps of all pictures: van der Maaten and Hinton,
"Visualizing Data using t-SNE", JMLR 9, 2008 (https://jmlr.org/papers/v9/vandermaaten08a.html).

    embedding   e(x): what the layer answers, its maps as they are, or their mean or maximum over all positions   (1)
    l2          |e(x) - e(y)|                                                                                    (2)
    cosine      1 - e(x) e(y) / (|e(x)| |e(y)|)                                                                  (3)
    nearest     the k references y of least distance to x, nearest first; of equals the earlier one
    map         the plane of the first two principal components, or t-SNE's, by scikit-learn

Distances are taken from the differences themselves, so that a copy is at 0; products only choose candidates. References
are weights of the model, so that it serves and reloads with what it has indexed.

Shapes:  B batch, H height, W width, C channels, M maps, D numbers of an embedding, R references, k neighbours.

Deviations, each with its reason:
- Maps are averaged over positions by default: the paper compares 4096 numbers of a dense layer, where place is gone
  already; of maps as they are ("flatten") the nearest have the same things at the same places.
"""

import keras
import numpy as np
import tensorflow as tf

from dmkeras.parts import checks, explained, explanation_doors
from dmkeras.parts.picture_files import decoded

POOLINGS, DISTANCES = ("mean", "max", "flatten"), ("l2", "cosine")
BATCH = 100  # pictures at a time
NONE = -1  # index and distance of a neighbour that there is none


@keras.saving.register_keras_serializable("dmkeras")
class FeatureSpace(keras.Model):
    """Embeddings of pictures by a layer, and the nearest of those that were indexed.

    Call: images `[B, H, W, C]` float32 in [0, 1]  ->  embeddings (1) `[B, D]` float32.

    | signature | inputs | outputs |
    | --- | --- | --- |
    | serving_default | images [B, H, W, C] float32 in [0, 1] | embedding [B, D] float32 |
    | nearest | images | indices [B, k] int32, distances [B, k] float32 |
    | embed_bytes | image_bytes [B] string, a picture file of any size | embedding |
    | nearest_bytes | image_bytes | indices, distances |

    indices count the references as they were indexed; where there are fewer than k, the rest is -1, both ways. Those of
    files are of classifiers of one or three channels alone.

    Endpoints cannot refuse as the call does: pixels outside [0, 1] are taken as they are.

    Attributes:
        references: [R, D], what was indexed, zeros beyond.
        num_indexed: how many of them there are.

    Args:
        classifier: a built `keras.Model` [B, H, W, C] -> [B, K]. One of a class of your own comes back from a file
            where that is registered (`keras.saving.register_keras_serializable`).
        layer: name of a layer, or of what `classifier.features` answers.
        pooling: of maps [B, h, w, M]: "mean", "max" or "flatten".
        distance: "l2" or "cosine".
        capacity: R, the most references.
        neighbours: k of the endpoints, at most R.
        image_shape: (H, W, C) where the classifier takes pictures of several sizes.

    Raises:
        ValueError: for settings out of range, what is no such classifier and a layer that does not exist; calls raise
            it for pictures of another shape or outside [0, 1], `nearest` for more neighbours than references.
    """

    def __init__(
        self,
        classifier,
        layer,
        pooling="mean",
        distance="l2",
        capacity=1000,
        neighbours=5,
        image_shape=None,
        **kwargs,
    ):
        super().__init__(autocast=False, **kwargs)
        self.classifier, self.layer = classifier, layer
        self.image_shape = explained.picture_shape(classifier, image_shape)
        explained.check_layer(classifier, self.image_shape, layer)
        self.pooling, self.distance = (
            checks.one_of("pooling", pooling, POOLINGS),
            checks.one_of("distance", distance, DISTANCES),
        )
        self.capacity = checks.whole_number("capacity", capacity, 1)
        self.neighbours = checks.whole_number("neighbours", neighbours, 1)
        if self.neighbours > self.capacity:
            raise ValueError(f"neighbours must be at most the capacity {self.capacity}, received {neighbours}")
        self._run = tf.function(self._embedding, autograph=False)
        self._find = tf.function(self._nearest, autograph=False, reduce_retracing=True)
        found = self._run.get_concrete_function(self._spec()).structured_outputs
        if found.shape.rank != 2 or found.shape[1] is None:
            raise ValueError(f"layer {layer!r} answers {found.shape}, expected numbers [B, D] or maps [B, h, w, M]")
        fixed = {"trainable": False, "initializer": "zeros"}
        kind = found.dtype.name
        self.references = self.add_weight(shape=(capacity, found.shape[1]), dtype=kind, name="references", **fixed)
        self.count = self.add_weight(shape=(), dtype="int32", name="count", **fixed)
        self(keras.Input(self.image_shape))

    @property
    def num_indexed(self):
        return int(self.count)

    # --- embeddings ---------------------------------------------------------------------------------------------------

    def call(self, images):
        return self._run(self._checked(images))

    def embed(self, images, progress=None):
        """(1) of many pictures [N, H, W, C] in [0, 1], some at a time: [N, D] NumPy array.

        progress: function of the number of pictures done, or None.
        """
        self.check_images(images)
        found = []
        for start in range(0, len(images), BATCH):
            found.append(self._run(self._cast(images[start : start + BATCH])).numpy())
            if progress:
                progress(start + len(found[-1]))
        return np.concatenate(found) if found else np.zeros(self.references.shape)[:0]

    def _embedding(self, images):
        found = explained.precise(explained.activations(self.classifier, images, [self.layer])[self.layer])
        if found.shape.rank == 4 and self.pooling != "flatten":
            reduce = tf.reduce_mean if self.pooling == "mean" else tf.reduce_max
            return reduce(found, axis=(1, 2))
        return tf.reshape(found, (-1, np.prod(found.shape[1:]))) if found.shape.rank == 4 else found

    # --- neighbours ---------------------------------------------------------------------------------------------------

    def index(self, images, progress=None):
        """Takes pictures [N, H, W, C] in [0, 1], N at most the capacity, as references instead of those before."""
        if not 0 < len(images) <= self.capacity:
            raise ValueError(f"expected 1 to {self.capacity} references, received {len(images)}; give a capacity")
        found = self.embed(images, progress)
        self.references.assign(np.pad(found, ((0, self.capacity - len(found)), (0, 0))))
        self.count.assign(len(found))

    def nearest(self, images, k=None):
        """The nearest references of pictures.

        Args:
            images: [B, H, W, C] in [0, 1].
            k: neighbours, by default those of the endpoints.

        Returns:
            (indices [B, k] int32, distances [B, k]), nearest first.
        """
        k = self.neighbours if k is None else checks.whole_number("k", k, 1)
        if k > self.num_indexed:
            known = f"the {self.num_indexed} references"
            raise ValueError(f"expected at most {known} as k, received {k}; index more, or give a smaller k")
        return self._find(self._run(self._checked(images)), k)

    def _nearest(self, embeddings, k):
        references, count = tf.convert_to_tensor(self.references), tf.convert_to_tensor(self.count)
        if self.distance == "cosine":  # half the square between unit vectors is (3)
            embeddings, references = (tf.math.l2_normalize(rows, -1, 1e-24) for rows in (embeddings, references))
        squares = tf.reduce_sum(references**2, -1) - 2.0 * tf.matmul(embeddings, references, transpose_b=True)
        there = tf.range(self.capacity) < count
        farthest = squares.dtype.max
        squares = tf.where(there, squares, farthest)  # [B, R], but for |e(x)|^2, which is the same for all
        _, candidates = tf.math.top_k(-squares, min(2 * k + 8, self.capacity))
        candidates = tf.sort(candidates, -1)  # so that of equals the earlier one wins
        apart = tf.reduce_sum((tf.gather(references, candidates) - embeddings[:, None]) ** 2, -1)
        apart = tf.where(candidates < count, apart, farthest)
        least, order = tf.math.top_k(-apart, k)
        indices = tf.gather(candidates, order, batch_dims=1)
        distances = -least / 2.0 if self.distance == "cosine" else tf.sqrt(tf.maximum(-least, 0.0))
        known = indices < count
        return tf.where(known, indices, NONE), tf.where(known, distances, tf.cast(NONE, distances.dtype))

    # --- maps ---------------------------------------------------------------------------------------------------------

    def project(self, images=None, method="pca", seed=0, perplexity=30.0):
        """Places of pictures in a plane, by scikit-learn: of each other alone, so that others are elsewhere.

        Args:
            images: [N, H, W, C] in [0, 1], at least 3; None for the references.
            method: "pca", or "tsne" after PCA to 50 numbers as van der Maaten and Hinton do.
            seed: of t-SNE, which starts from PCA's plane.
            perplexity: of t-SNE, below N.

        Returns:
            [N, 2] float64.
        """
        from sklearn.decomposition import PCA
        from sklearn.manifold import TSNE

        checks.one_of("method", method, ("pca", "tsne"))
        rows = self.embed(images) if images is not None else self.references.numpy()[: self.num_indexed]
        if len(rows) < 3:
            raise ValueError(f"expected at least 3 pictures to project, received {len(rows)}; give them, or index them")
        rows = np.float64(rows)
        if self.distance == "cosine":
            rows = rows / np.maximum(1e-12, np.linalg.norm(rows, axis=1, keepdims=True))
        if method == "pca":
            return PCA(2, random_state=seed).fit_transform(rows)
        perplexity = checks.number("perplexity", perplexity, 1.0, below=len(rows))
        rows = PCA(min(50, *rows.shape), random_state=seed).fit_transform(rows)
        return np.float64(TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(rows))

    # --- doors --------------------------------------------------------------------------------------------------------

    def check_images(self, images):
        checks.check_images(images, self.image_shape)

    def _checked(self, images):
        self.check_images(images)
        return self._cast(images)

    def _cast(self, images):
        return explained.precise(tf.convert_to_tensor(images))

    def _spec(self):
        return tf.TensorSpec((None, *self.image_shape), "float32", name="images")

    def signatures(self):
        image_bytes = tf.TensorSpec((None,), "string", name="image_bytes")
        ensured = lambda images: tf.ensure_shape(images, (None, *self.image_shape))
        from_files = lambda image_bytes: decoded(image_bytes, self.image_shape)

        def embed(images):
            return {"embedding": tf.cast(self._embedding(images), "float32")}

        def nearest(images):
            indices, distances = self._nearest(self._embedding(images), self.neighbours)
            return {"indices": indices, "distances": tf.cast(distances, "float32")}

        found = {
            "serving_default": (lambda images: embed(ensured(images)), [self._spec()]),
            "nearest": (lambda images: nearest(ensured(images)), [self._spec()]),
        }
        if self.image_shape[2] in (1, 3):
            found["embed_bytes"] = (lambda image_bytes: embed(from_files(image_bytes)), [image_bytes])
            found["nearest_bytes"] = (lambda image_bytes: nearest(from_files(image_bytes)), [image_bytes])
        return found

    def get_config(self):
        names = ("layer", "pooling", "distance", "capacity", "neighbours", "image_shape")
        own = {name: getattr(self, name) for name in names}
        return {**super().get_config(), **own, "classifier": keras.saving.serialize_keras_object(self.classifier)}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "classifier": explanation_doors.restored(config["classifier"])})


def thumbnail_map(points, images, classes=None, side=800, thumbnail=32):
    """Pictures at their places in a plane; of those that would cover one another the first alone is shown.

    Args:
        points: [N, 2], x to the right and y upwards.
        images: [N, H, W, 1 or 3] in [0, 1].
        classes: [N] whole numbers below 10, which colour the frames, or None.
        side: of the map, pixels.
        thumbnail: of the longer side of a thumbnail, pixels.

    Returns:
        uint8 [side, side, 3], white where there is nothing.
    """
    import matplotlib

    points, images = np.asarray(points, "float64"), np.asarray(images)
    if points.shape != (len(images), 2) or not len(points) or not np.isfinite(points).all():
        raise ValueError(f"expected a finite place [N, 2] for each of {len(images)} pictures, received {points.shape}")
    sides = np.maximum(1, np.round(thumbnail * np.array(images.shape[1:3]) / max(images.shape[1:3]))).astype(int)
    small = tf.image.resize(images, sides, antialias=True).numpy().clip(0, 1)
    small = np.broadcast_to(small, (*small.shape[:3], 3)).copy()
    if classes is not None:
        frames = matplotlib.colormaps["tab10"](np.asarray(classes) % 10)[:, None, None, :3]
        edge = np.ones(sides, bool)
        edge[2:-2, 2:-2] = False
        small = np.where(edge[..., None], frames, small)
    spread = np.maximum(1e-12, np.ptp(points, axis=0))
    places = (points - points.min(axis=0)) / spread * [1, -1] + [0, 1]  # y upwards
    corners = np.round(places * (side - sides[::-1])).astype(int)  # x, y
    canvas, taken = np.ones((side, side, 3)), np.zeros((side, side), bool)
    for (x, y), picture in zip(corners, small, strict=True):
        part = np.s_[y : y + sides[0], x : x + sides[1]]
        if not taken[part].any():
            canvas[part], taken[part] = picture, True
    return np.round(255 * canvas).astype("uint8")
