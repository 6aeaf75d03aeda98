"""Registration of one picture with another by SimpleITK, and labels carried along: a single atlas.

    affine        maximises the correlation of the greys over three resolutions, from the identity
    deformable    symmetric-forces diffeomorphic demons on the affinely moved picture, after the histograms were matched

A picture is grey for this, the mean of its channels. The answer is where to look: a pixel q of the fixed picture shows
what the moving one has at places[q] = affine(q + u(q)). Both steps look at pictures alone, so that one registration
serves every segmentation of a picture. One thread, no random sampling: the same pictures give the same places.

Shapes:  H height, W width, C channels; places are y, x in pixels, pixel centres on whole numbers.
"""

import functools

import numpy as np

LEVELS = ((4, 2.0), (2, 1.0), (1, 0.0))  # shrink factor, smoothing in pixels
AFFINE_STEPS, DEMONS_STEPS = 60, 60
STIFFNESS = 2.0  # pixels: the Gaussian that smooths the field of the demons


def simple_itk():
    """The module SimpleITK; ImportError names the extra that installs it."""
    try:
        import SimpleITK
    except ImportError as error:
        raise ImportError(
            "registration needs SimpleITK, which is not installed: pip install 'dmkeras[registration]', "
            "or choose another method, 'cnn' or 'forest'"
        ) from error
    return SimpleITK


def places(fixed, moving, deformable=True):
    """float32 [H, W, 2]: where in `moving` each pixel of `fixed` looks.

    Args:
        fixed: a picture [H, W, C].
        moving: another of the same size, which may differ in brightness.
        deformable: whether demons follow the affine step.

    Raises:
        ValueError: for pictures of different or no sizes, or numbers that are not finite.
        ImportError: where SimpleITK is not installed.
    """
    fixed, moving = (np.asarray(image, "float32") for image in (fixed, moving))
    for image in (fixed, moving):
        if image.ndim != 3 or image.shape != fixed.shape or not image.size or not np.isfinite(image).all():
            received = f"{list(fixed.shape)} and {list(moving.shape)}"
            raise ValueError(f"expected two pictures [H, W, C] of one size and finite numbers, received {received}")
    sitk = simple_itk()
    fixed, moving = (sitk.GetImageFromArray(image.mean(-1)) for image in (fixed, moving))
    transform = _affine(sitk, fixed, moving)
    if deformable:
        transform = sitk.CompositeTransform([transform, _demons(sitk, fixed, moving, transform)])
    field = sitk.TransformToDisplacementField(
        transform, sitk.sitkVectorFloat64, fixed.GetSize(), fixed.GetOrigin(), fixed.GetSpacing(), fixed.GetDirection()
    )
    moves = sitk.GetArrayFromImage(field)[..., ::-1]  # [H, W, 2], y first
    return (np.moveaxis(np.indices(moves.shape[:2]), 0, -1) + moves).astype("float32")


def remembered_places(fixed, moving):
    """`places` of two pictures, kept for the next segmentation of the same ones: do not write to it."""
    fixed, moving = (np.ascontiguousarray(image, "float32") for image in (fixed, moving))
    return _remembered(fixed.tobytes(), fixed.shape, moving.tobytes(), moving.shape)


@functools.lru_cache(maxsize=32)
def _remembered(fixed, fixed_shape, moving, moving_shape):
    pictures = (fixed, fixed_shape), (moving, moving_shape)
    return places(*(np.frombuffer(data, "float32").reshape(shape) for data, shape in pictures))


def propagate(labels, places):
    """Whole numbers [H, W] seen at `places` [..., H, W, 2]: those of the nearest pixel, the outermost beyond."""
    labels = np.asarray(labels)
    rows, columns = (np.clip(np.rint(places[..., i]), 0, labels.shape[i] - 1).astype(int) for i in (0, 1))
    return labels[rows, columns]


def _affine(sitk, fixed, moving):
    if min(map(_spread, (fixed, moving))) < 1e-6:  # nothing to hold on to
        return sitk.AffineTransform(2)
    centre = fixed.TransformContinuousIndexToPhysicalPoint([(side - 1) / 2 for side in fixed.GetSize()])
    start = sitk.AffineTransform(2)
    start.SetCenter(centre)
    search = sitk.ImageRegistrationMethod()
    search.SetNumberOfThreads(1)
    search.SetMetricAsCorrelation()
    search.SetInterpolator(sitk.sitkLinear)
    search.SetInitialTransform(start, inPlace=False)
    search.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-3, AFFINE_STEPS, gradientMagnitudeTolerance=1e-6)
    search.SetOptimizerScalesFromPhysicalShift()
    search.SetShrinkFactorsPerLevel([shrink for shrink, _ in LEVELS])
    search.SetSmoothingSigmasPerLevel([sigma for _, sigma in LEVELS])
    try:
        return search.Execute(fixed, moving)
    except RuntimeError:  # ITK's own: the pictures no longer overlap, or are too small for the pyramid
        return start


def _demons(sitk, fixed, moving, affine):
    """The displacement [H, W] between the fixed picture and the affinely moved one."""
    moved = sitk.Resample(moving, fixed, affine, sitk.sitkLinear, _border(sitk, moving))
    matched = sitk.HistogramMatching(moved, fixed, numberOfHistogramLevels=128, numberOfMatchPoints=15)
    demons = sitk.FastSymmetricForcesDemonsRegistrationFilter()
    demons.SetNumberOfThreads(1)
    demons.SetNumberOfIterations(DEMONS_STEPS)
    demons.SetStandardDeviations(STIFFNESS)
    return sitk.DisplacementFieldTransform(sitk.Cast(demons.Execute(fixed, matched), sitk.sitkVectorFloat64))


def _spread(image):
    import SimpleITK

    return float(np.std(SimpleITK.GetArrayViewFromImage(image)))


def _border(sitk, image):
    """The middle grey of the outermost pixels, which stands for what lies beyond."""
    grey = sitk.GetArrayViewFromImage(image)
    return float(np.median(np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])))
