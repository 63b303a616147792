#!/usr/bin/env python3
"""Run a network in PyTorch on one input, and write what each layer makes of it for `resnet diff MODEL --against DUMP`.

    python3 tools/dump_torch.py resnet50 --weights resnet50-0676ba61.pth -o dump.npz

takes a network of torchvision's, or of timm's where that is installed. For a network of your own whose modules have
torchvision's names (layer1.0.conv1, ...), call dump(model, x, "dump.npz") from the program that makes it.

The dump is an .npz file, stored, of 32-bit floats: "input", [1][channels][height][width] and normalised already, and
one array for each layer under the name that `resnet inspect --layers` gives it: a convolution's is taken behind its
batch normalisation and, where one follows, the residual and the ReLU. It needs torch, which reads the weights: take
files that you trust, or convert them with tools/convert.py, which needs no trust.
"""
import argparse
import re
import sys

import numpy
import torch

MEAN = numpy.array((0.485, 0.456, 0.406), numpy.float32)
STD = numpy.array((0.229, 0.224, 0.225), numpy.float32)
PATCH = 16


class Recorder:
    """Collects what layers give, in the order in which they run."""

    def __init__(self):
        self.arrays = {}
        self.hooks = []

    def keep(self, name, value):
        self.arrays[name] = value.detach().float().contiguous().numpy().copy()

    def output(self, module, name, then=lambda value: value):
        """Keep what the module gives, and what `then` makes of that, whatever is done to it in place later."""
        self.hooks.append(module.register_forward_hook(
            lambda _, inputs, output: self.keep(name, then(output.clone()))))

    def input(self, module, name):
        self.hooks.append(module.register_forward_hook(lambda _, inputs, output: self.keep(name, inputs[0])))

    def close(self):
        for hook in self.hooks:
            hook.remove()


def watch_stem(recorder, model):
    name = "conv1"
    if isinstance(model.conv1, torch.nn.Sequential):  # three 3x3, as timm names them
        recorder.output(model.conv1[1], "conv1.0", torch.relu)
        recorder.output(model.conv1[4], "conv1.3", torch.relu)
        name = "conv1.6"
    recorder.output(model.bn1, name, torch.relu)
    if hasattr(model, "maxpool"):
        recorder.output(model.maxpool, "maxpool")


def watch_shortcut(recorder, block, path):
    downsample = getattr(block, "downsample", None)
    if downsample is not None:
        if isinstance(downsample[0], torch.nn.AvgPool2d):
            recorder.output(downsample[0], path + ".downsample.0")
        recorder.output(downsample, path + ".downsample")
    shortcut = getattr(block, "shortcut", None)  # of CIFAR networks: every second pixel, and zeros
    if shortcut is not None and len(list(shortcut.children())) == 0 and not isinstance(shortcut, torch.nn.Sequential):
        recorder.output(shortcut, path + ".shortcut")


def watch_block(recorder, block, path):
    watch_shortcut(recorder, block, path)
    last = 3 if hasattr(block, "conv3") else 2
    for k in range(1, last):
        recorder.output(getattr(block, f"bn{k}"), f"{path}.conv{k}", torch.relu)
    attention = getattr(block, "se", None)
    if attention is None:
        recorder.output(block, f"{path}.conv{last}")
        return
    recorder.output(getattr(block, f"bn{last}"), f"{path}.conv{last}")
    recorder.input(attention.fc1, path + ".se.mean")
    recorder.output(attention.fc1, path + ".se.fc1", torch.relu)
    recorder.output(attention.fc2, path + ".se.fc2", torch.sigmoid)
    recorder.output(block, path + ".se")


def watch_head(recorder, model):
    pool = getattr(model, "avgpool", getattr(model, "global_pool", None))
    head = getattr(model, "fc", getattr(model, "linear", None))
    if pool is not None:
        recorder.output(pool, "avgpool", lambda value: value.flatten(1))
    if isinstance(head, torch.nn.Linear):
        if pool is None:
            recorder.input(head, "avgpool")
        recorder.output(head, "fc")


def dump(model, x, path):
    """Run a network on one normalised input, [1][channels][height][width], and write the dump."""
    recorder = Recorder()
    watch_stem(recorder, model)
    for name, module in model.named_modules():
        if re.fullmatch(r"layer\d+\.\d+", name):
            watch_block(recorder, module, name)
    watch_head(recorder, model)
    was_training = model.training
    with torch.no_grad():
        model.eval()(x)
    model.train(was_training)
    recorder.close()
    with open(path, "wb") as file:
        numpy.savez(file, input=x.numpy(), **recorder.arrays)
    return list(recorder.arrays)


def normalised(pixels):
    """[1][3][height][width] floats of [height][width][3] bytes, by ImageNet's mean and standard deviation."""
    values = (pixels.astype(numpy.float32) / numpy.float32(255) - MEAN) / STD
    return values.transpose(2, 0, 1)[None]


def load_input(path):
    """A crop of bytes, [height][width][3], is normalised; floats, [1][channels][height][width], are taken as they are."""
    array = numpy.load(path, allow_pickle=False)
    if array.dtype == numpy.uint8 and array.ndim == 3 and array.shape[2] == 3:
        return normalised(array)
    if array.dtype == numpy.float32 and array.ndim == 4 and array.shape[0] == 1:
        return array
    sys.exit(f"{path}: {array.dtype} of shape {array.shape}; expected uint8 [height][width][3] or float32 [1][channels]"
             "[height][width]")


def random_input(size, seed):
    """Patches of colour: noise would be nothing like what int8 networks are calibrated with. Bytes at first, so that
    networks in every precision see the same numbers."""
    patches = numpy.random.default_rng(seed).integers(0, 256, (-(-size // PATCH), -(-size // PATCH), 3), numpy.uint8)
    return normalised(patches.repeat(PATCH, 0).repeat(PATCH, 1)[:size, :size])


def build(name, classes):
    import torchvision
    if hasattr(torchvision.models, name):
        return getattr(torchvision.models, name)(num_classes=classes)
    try:
        import timm
    except ImportError:
        sys.exit(f"torchvision has no {name}, and timm is not installed")
    return timm.create_model(name, num_classes=classes)


def load_weights(model, path):
    state = torch.load(path, map_location="cpu", weights_only=True)
    model.load_state_dict(state.get("state_dict", state))


def main():
    parser = argparse.ArgumentParser(description="Write what each layer of a network computes in PyTorch.")
    parser.add_argument("network", help="its name in torchvision or timm, such as resnet50")
    parser.add_argument("--weights", help="its state_dict, in a file that you trust (without: random ones)")
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--input", help="an .npy file: a crop of bytes, or normalised floats (without: random patches)")
    parser.add_argument("--size", type=int, default=224, help="pixels of a side of the random input (224)")
    parser.add_argument("--seed", type=int, default=0, help="of random weights and input (0)")
    parser.add_argument("-o", "--output", required=True, help="the .npz file to write")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    model = build(options.network, options.classes)
    if options.weights:
        load_weights(model, options.weights)
    x = load_input(options.input) if options.input else random_input(options.size, options.seed)
    layers = dump(model, torch.from_numpy(numpy.ascontiguousarray(x)), options.output)
    print(f"{options.output}: the input and {len(layers)} layers")


if __name__ == "__main__":
    main()
