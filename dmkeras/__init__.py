"""The classics of deep vision as Keras models, each one trained, proved and served.

`import dmkeras` costs milliseconds: TensorFlow is imported when a public name is first touched.
"""

import importlib

__version__ = "0.1.0"

# The one table of public names -> modules. A new system adds one line.
_HOME = {
    "Autoencoder": "dmkeras.generative.autoencoder",
    "DCGAN": "dmkeras.generative.dcgan",
    "Darknet19": "dmkeras.backbones.darknet19",
    "DeepDream": "dmkeras.understanding.deepdream",
    "EncoderDecoder": "dmkeras.segmentation.encoder_decoder",
    "FCN": "dmkeras.segmentation.fcn",
    "FeatureSpace": "dmkeras.understanding.feature_space",
    "Filters": "dmkeras.understanding.filters",
    "FVSBN": "dmkeras.generative.fvsbn",
    "FoolingImage": "dmkeras.understanding.fooling",
    "GAN": "dmkeras.generative.gan",
    "GradientAscent": "dmkeras.understanding.gradient_ascent",
    "HumanPose": "dmkeras.detection.human_pose",
    "InfoGAN": "dmkeras.generative.infogan",
    "LocalizationNetwork": "dmkeras.detection.localization",
    "MaximalPatches": "dmkeras.understanding.maximal_patches",
    "NADE": "dmkeras.generative.nade",
    "Occlusion": "dmkeras.understanding.occlusion",
    "PixelCNN": "dmkeras.generative.pixel_cnn",
    "PixelRNN": "dmkeras.generative.pixel_rnn",
    "ReverseClassificationAccuracy": "dmkeras.segmentation.reverse_classification_accuracy",
    "SSD": "dmkeras.detection.ssd",
    "Saliency": "dmkeras.understanding.saliency",
    "SlidingWindow": "dmkeras.segmentation.sliding_window",
    "SmallCNN": "dmkeras.backbones.small_cnn",
    "SqueezeNet": "dmkeras.backbones.squeezenet",
    "VAE": "dmkeras.generative.vae",
    "VGG": "dmkeras.backbones.vgg",
    "Recipe": "dmkeras.recipe",
    "WordTree": "dmkeras.parts.word_tree",
    "YOLO9000": "dmkeras.detection.yolo9000",
    "YOLOv2": "dmkeras.detection.yolov2",
    "data": "dmkeras.data",
    "export": "dmkeras.serving.export",
    "figures": "dmkeras.figures",
    "layers": "dmkeras.layers",
    "recipe": "dmkeras.recipe",
    "run": "dmkeras.recipe",
    "serving": "dmkeras.serving",
}
__all__ = sorted([*_HOME, "load"])


def load(path):
    """A `.keras` file of this package -> its model, compiled as it was saved, in any process.

    Keras finds only classes whose modules were imported: the modules that the file names are imported first.

    Args:
        path: of a `.keras` file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no `.keras` file.
    """
    import json
    import pathlib
    import zipfile

    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}; a run writes its model to runs/NAME/0001/model.keras")
    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise ValueError(f"{path} is no .keras file ({error}); save one with model.save('NAME.keras')") from error
    for module in sorted(_modules(config)):
        importlib.import_module(module)
    import keras

    return keras.models.load_model(path)


def _modules(config):
    """The dmkeras modules that a Keras config names, wherever it is nested."""
    found = set()
    if isinstance(config, dict):
        module = config.get("module")
        if isinstance(module, str) and module.partition(".")[0] == "dmkeras":
            found.add(module)
        config = list(config.values())
    if isinstance(config, list):
        found.update(*map(_modules, config))
    return found


def __getattr__(name):
    if name not in _HOME:
        import difflib

        known = {public.lower(): public for public in __all__}
        near = [known[low] for low in difflib.get_close_matches(name.lower(), known, cutoff=0.5)] or __all__
        raise AttributeError(f"module 'dmkeras' has no attribute {name!r}; did you mean {', '.join(near)}?")
    module = importlib.import_module(_HOME[name])
    value = module if _HOME[name] == f"dmkeras.{name}" else getattr(module, name)
    globals()[name] = value
    return value


def __dir__():
    return [*__all__, "__version__"]
