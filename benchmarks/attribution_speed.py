"""Speed of attribution beside captum and tf-keras-vis: SqueezeNet 1.0 at 224 px, the same weights and threads for all.

    python -m benchmarks.attribution_speed --weights squeezenet_v1.0_imagenet.npz     prints a table for each batch
    python -m benchmarks.attribution_speed --methods vanilla guided --batches 1 --seconds 5

Needs torch, captum and tf-keras-vis (`[peers]`); random weights without --weights. captum has the network twice: as
torch lays it out and with channels last, which is torch's faster way on most CPUs. Sums over copies of a picture go
through all libraries about 20 pictures at a time. A call takes pictures that no call had before, as a NumPy array, and
is over when its map is one. Calls take turns, so that load meets all; a cell is the median, milliseconds a picture.

captum / ours and tf-keras-vis / ours are above 1 where ours is faster. difference: greatest, of ours from captum's on
three photographs, as a share of captum's greatest value; of smoothgrad without noise, since draws are each library's.
"""

import argparse
import functools
import os
import time
import warnings

import numpy as np

SIDE, COPIES, AT_ONCE = 224, 20, 20  # pixels, of smoothgrad and integrated gradients, pictures in memory
WINDOW, STEP = 32, 16  # pixels, of occlusion
METHODS = ("vanilla", "guided", "deconvnet", "input_x_gradient", "smoothgrad", "integrated", "occlusion")
NOISE = 0.15


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", help="path of a file that dmkeras.backbones.squeezenet takes")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 20])
    parser.add_argument("--seconds", type=float, default=20.0, help="of each row, at least; three calls are the fewest")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of each library")
    options = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    warnings.simplefilter("ignore")  # captum says for each call that it sets hooks and gradients
    import tensorflow as tf
    import torch

    tf.config.threading.set_intra_op_parallelism_threads(options.threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)  # operations in turn, as torch does them
    torch.set_num_threads(options.threads)
    from dmkeras.backbones.squeezenet import SqueezeNet

    net = SqueezeNet(weights=options.weights)
    rng, photos = np.random.default_rng(0), photographs()
    print(f"{options.threads} threads; load average {os.getloadavg()[0]:.2f} at first", flush=True)
    for batch in options.batches:
        print(f"\nbatch {batch}\n| method | {' | '.join(COLUMNS)} |\n{'| --- ' * (1 + len(COLUMNS))}|")
        for method in options.methods:
            runs = tools(method, net, batch)
            off = difference(method, net, photos) if "ours" in runs else None
            times = by_turns(runs, functools.partial(fresh, photos, batch, rng), options.seconds)
            print(row(method, {name: 1e3 * np.median(taken) / batch for name, taken in times.items()}, off), flush=True)
    print(f"\nload average {os.getloadavg()[0]:.2f} at last")


COLUMNS = ("ours", "captum", "channels last", "tf-keras-vis", "captum / ours", "channels last / ours", "vis / ours")
COLUMNS += ("difference",)


def row(method, found, off):
    cells = [f"{found[name]:.1f}" if name in found else "" for name in COLUMNS[:4]]
    shown = {name: f"{found[name] / found['ours']:.2f}" for name in found if "ours" in found}
    cells += [shown.get(name, "") for name in COLUMNS[1:4]]
    return f"| {method} | {' | '.join(cells)} | {'' if off is None else f'{off:.1e}'} |"


def photographs():
    """[3, SIDE, SIDE, 3] in [0, 1]."""
    import tensorflow as tf

    from dmkeras.data import load

    records = load("photos", "all", names=("chelsea", "coffee", "camera"))
    resized = [tf.image.resize(record["image"], (SIDE, SIDE), antialias=True) for record in records]
    return np.clip(np.stack(resized), 0.0, 1.0).astype("float32")


def fresh(photos, batch, rng):
    """Pictures and classes that are new: photographs, rolled, under a little noise."""
    images = np.stack([np.roll(photos[k], rng.integers(SIDE, size=2), (0, 1)) for k in rng.integers(3, size=batch)])
    noise = rng.normal(0, 0.02, images.shape).astype("float32")
    return np.clip(images + noise, 0.0, 1.0), rng.integers(1000, size=batch)


def by_turns(runs, make, seconds):
    """{name: seconds of each call}."""
    times = {name: [] for name in runs}
    for run in runs.values():
        run(*make())  # traces
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(next(iter(times.values()))) < 3:
        for name, run in runs.items():
            images, classes = make()
            time.sleep(0.02)  # until the threads of the one before rest
            start = time.perf_counter()
            run(images, classes)
            times[name].append(time.perf_counter() - start)
    return times


# --- the libraries --------------------------------------------------------------------------------------------------


def tools(method, net, batch):
    """{name: function of images [B, H, W, 3] and classes [B] -> array}."""
    runs = {name: run for name, run in (("ours", ours(method, net)), ("captum", captum(method, net, batch))) if run}
    runs["channels last"] = captum(method, net, batch, channels_last=True)
    if method in ("vanilla", "smoothgrad"):
        runs["tf-keras-vis"] = keras_vis(net, COPIES if method == "smoothgrad" else 0)
    return runs


def ours(method, net, reduce="max_abs", noise=NOISE):
    import dmkeras

    if method == "occlusion":
        try:
            model = dmkeras.Occlusion(net, WINDOW, STEP, 0.5)
        except (AttributeError, ModuleNotFoundError):
            print("(this version has no Occlusion)")
            return None
    else:
        average = {"samples": COPIES, "noise": noise, "steps": COPIES, "chunk": AT_ONCE}
        model = dmkeras.Saliency(net, method, reduce, **average)
    return lambda images, classes: model(images, classes=classes).numpy()


def captum(method, net, batch, channels_last=False, reduce=True, noise=NOISE):
    import torch
    from captum import attr

    model = torch_squeezenet(net)
    model = model.to(memory_format=torch.channels_last) if channels_last else model
    each = max(1, AT_ONCE // batch)  # copies of each picture at once
    saliency = attr.Saliency(model)
    smooth = {"nt_samples": COPIES, "nt_samples_batch_size": each, "stdevs": noise, "abs": False}
    steps = {"n_steps": COPIES, "method": "riemann_middle", "internal_batch_size": max(AT_ONCE, batch)}
    window = {"sliding_window_shapes": (3, WINDOW, WINDOW), "strides": (3, STEP, STEP), "baselines": 0.5}
    explain = {
        "vanilla": lambda x, c: saliency.attribute(x, c, abs=False),
        "guided": attr.GuidedBackprop(model).attribute,
        "deconvnet": attr.Deconvolution(model).attribute,
        "input_x_gradient": attr.InputXGradient(model).attribute,
        "smoothgrad": lambda x, c: attr.NoiseTunnel(saliency).attribute(x, target=c, **smooth),
        "integrated": lambda x, c: attr.IntegratedGradients(model).attribute(x, target=c, **steps),
        "occlusion": lambda x, c: attr.Occlusion(model).attribute(x, target=c, perturbations_per_eval=each, **window),
    }[method]

    def run(images, classes):
        pictures = torch.from_numpy(images).permute(0, 3, 1, 2)
        pictures = pictures if channels_last else pictures.contiguous()
        found = explain(pictures.requires_grad_(method != "occlusion"), torch.from_numpy(np.asarray(classes, "int64")))
        found = found.detach()
        if method == "occlusion":
            return found[:, 0].numpy()
        return (found.abs().amax(1) if reduce else found.permute(0, 2, 3, 1)).numpy()

    return run


def keras_vis(net, samples):
    import keras
    from tf_keras_vis.saliency import Saliency
    from tf_keras_vis.utils.scores import CategoricalScore

    picture = keras.Input((SIDE, SIDE, 3))
    saliency = Saliency(keras.Model(picture, net(picture)), clone=False)
    noise = {"smooth_samples": samples, "smooth_noise": NOISE} if samples else {}
    return lambda images, classes: np.asarray(saliency(CategoricalScore(list(map(int, classes))), images, **noise))


def torch_squeezenet(net):
    """SqueezeNet 1.0 in PyTorch, with the weights of a `dmkeras.backbones.squeezenet.SqueezeNet`."""
    import torch
    from torch import nn

    def taken(layer, **options):
        kernel, bias = (torch.from_numpy(np.array(weight)) for weight in (layer.kernel, layer.bias))
        height, width, inputs, outputs = kernel.shape
        convolution = nn.Conv2d(inputs, outputs, (height, width), **options)
        convolution.weight.data = kernel.permute(3, 2, 0, 1).contiguous()
        convolution.bias.data = bias
        return nn.Sequential(convolution, nn.ReLU())

    class Fire(nn.Module):
        def __init__(self, fire):
            super().__init__()
            self.squeeze, self.expand1x1 = taken(fire.squeeze1x1), taken(fire.expand1x1)
            self.expand3x3 = taken(fire.expand3x3, padding=1)

        def forward(self, maps):
            squeezed = self.squeeze(maps)
            return torch.cat([self.expand1x1(squeezed), self.expand3x3(squeezed)], 1)

    class Preprocessing(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("mean", torch.tensor([104.0, 117.0, 123.0])[:, None, None])

        def forward(self, images):
            return 255.0 * images.flip(1) - self.mean

    pool = lambda: nn.MaxPool2d(3, 2, ceil_mode=True)
    fires = [Fire(fire) for fire in net.fires]
    stages = [Preprocessing(), taken(net.conv1, stride=2), pool(), *fires[:3], pool(), *fires[3:7], pool(), fires[7]]
    head = [taken(net.conv10, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*stages, *head).eval()


def difference(method, net, photos):
    """The greatest of ours from captum's, as a share of captum's greatest."""
    classes = np.array([285, 967, 872])
    a = ours(method, net, None, 0.0)(photos, classes)
    b = captum(method, net, len(photos), reduce=False, noise=0.0)(photos, classes)
    return np.abs(a - b).max() / np.abs(b).max()


if __name__ == "__main__":
    main()
