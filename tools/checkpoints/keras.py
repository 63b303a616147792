"""Keras's .h5 files: listed by another process (hdf5_list.py), named by the layers of keras.applications."""
import math
import os
import re
import subprocess
import sys

from .facts import Checkpoint, Facts
from .failure import Failure, Refused, listed, shown
from .files import MAX_INDEX, Span
from .strict_json import parse_json
from .tensors import MAX_DIMENSIONS, contiguous, is_size, item_size, shape_text

LISTER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "hdf5_list.py")
MAX_SECONDS = 60  # by the clock; what it may compute is its own to limit
NOT_INSTALLED = 5  # the listing's exit status
DTYPES = {"<f4": "float32", "<f2": "float16", "<f8": "float64", "<i8": "int64", "<i4": "int32", "|u1": "uint8"}
EPSILON = 1.001e-5
# What keras.applications takes away from pixels of 0 to 255, after it turned RGB into BGR.
MEAN = (103.939, 116.779, 123.68)
PARTS = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
HEADS = ("predictions", "probs", "fc1000")


def list_datasets(source):
    """name -> [dtype, shape, position, size] or why it is not read, as the listing says; nothing of it is checked."""
    command = [sys.executable, "-B", LISTER, os.path.abspath(source.path)]
    try:
        done = subprocess.run(command, timeout=MAX_SECONDS, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, check=False)
    except subprocess.TimeoutExpired:
        raise Refused("is an HDF5 file that cannot be listed in a minute") from None
    except OSError as error:
        raise Failure(f"{shown(source.path)}: Python cannot be started to list it: {error.strerror}") from None
    if done.returncode == NOT_INSTALLED:
        raise Failure(f"{shown(source.path)}: h5py is needed to read Keras's files: install it for this Python "
                      "(Debian: python3-h5py)")
    if done.returncode < 0 or len(done.stdout) > MAX_INDEX:
        raise Refused("is an HDF5 file that crashes or stalls the HDF5 library, or lists more than is read")
    if done.returncode:
        raise Refused(shown(done.stdout.decode(errors="replace").strip() or "is a damaged HDF5 file"))
    return parse_json(done.stdout, "an HDF5 listing")


def dataset_tensor(source, name, entry):
    """The Tensor of one listed dataset, which lies in the file."""
    if type(entry) is str:
        raise Refused(f"{shown(name)} is {shown(entry)}, which is not read: Keras writes neither")
    code, shape, position, size = entry
    if code not in DTYPES:
        raise Refused(f"{shown(name)} has the type {shown(code, 40)}, which is not read")
    if len(shape) > MAX_DIMENSIONS or not all(map(is_size, shape)) or (
            math.prod(shape) * item_size(DTYPES[code]) != size):
        raise Refused(f"{shown(name)} is {shown(shape_text(shape))} {DTYPES[code]}, but has {size} bytes")
    if not 0 <= position <= source.size - size:
        raise Refused(f"{shown(name)} lies outside the file: {size} bytes at {position} of {source.size}")
    return contiguous(DTYPES[code], shape, Span(source, position, size))


def read_keras(source):
    """A Checkpoint of the datasets that are a layer's, by the last two parts of their names: layer/weight."""
    tensors = {}
    for path, entry in list_datasets(source).items():
        parts = path.split("/")
        if parts[0] in ("optimizer_weights", "optimizer", "_optimizer") or len(parts) < 2:
            continue
        name = "/".join(parts[-2:]).removesuffix(":0")
        if name in tensors:
            raise Refused(f"has two weights called {shown(name)}")
        tensors[name] = dataset_tensor(source, path, entry)
    facts = Facts(stride_at="1x1", epsilon=EPSILON, order="bgr", mean=[value / 255 for value in MEAN],
                  std=[1 / 255] * 3)
    return Checkpoint(tensors, "HDF5", facts)


def layer_names(tensors):
    """layer -> what the model file calls its convolution, batch normalisation or classifier."""
    layers = dict.fromkeys(name.split("/")[0] for name in tensors)
    for layer in layers:
        if re.fullmatch(r"(.*_preact_bn|post_bn|post_relu)", layer):
            raise Refused(f"is a pre-activation network (ResNetV2; it has {shown(layer)}), which is not supported")
        found = re.fullmatch(r"conv([2-5])_block([0-9]{1,4})_([0-3])_(conv|bn)", layer, re.ASCII)
        if found:
            stage, block, k, kind = int(found[1]) - 1, int(found[2]) - 1, int(found[3]), found[4]
            part = f"{'conv' if kind == 'conv' else 'bn'}{k}" if k else f"downsample.{0 if kind == 'conv' else 1}"
            layers[layer] = f"layer{stage}.{block}.{part}"
    layers.update({layer: name for layer, name in (("conv1_conv", "conv1"), ("conv1_bn", "bn1")) if layer in layers})
    heads = [layer for layer in layers if layer in HEADS] or [
        layer for layer in layers if not layers[layer] and len(shape_of(tensors, f"{layer}/kernel")) == 2]
    if len(heads) > 1:
        raise Refused(f"has several classifiers: {listed(heads)}")
    layers.update((layer, "fc") for layer in heads)
    others = [layer for layer in layers if not layers[layer]]
    if others:
        raise Refused(f"has layers that are not of keras.applications' ResNet50, 101 or 152: {listed(others)}")
    return layers


def shape_of(tensors, name):
    return tensors[name].shape if name in tensors else ()


def keras_names(tensors):
    """The tensors under the names of the model file and in its order of dimensions."""
    layers, renamed = layer_names(tensors), {}
    for name, tensor in tensors.items():
        layer, part = name.split("/")
        if part == "kernel":
            axes = {4: (3, 2, 0, 1), 2: (1, 0)}.get(len(tensor.shape))
            renamed[f"{layers[layer]}.weight"] = tensor.transposed(*axes) if axes else tensor
        else:
            renamed[f"{layers[layer]}.{PARTS.get(part, part)}"] = tensor
    return renamed
