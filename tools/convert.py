#!/usr/bin/env python3
"""Turns a checkpoint of a ResNet into a model file (models/FORMAT.md), without the framework that wrote it.

Reads .pth files of torch.save (ZIP and the format before PyTorch 1.6), .safetensors files and their indices, ONNX, and
Keras's .h5 files (these need h5py), with the names of torchvision, timm, Hugging Face and Keras. The reading is in the
package `checkpoints` beside this file; here is the command.

Exit status: 0 converted, 2 wrong usage, 3 the checkpoint is refused, 4 a file cannot be read or written.
"""
import argparse
import math
import os
import re
import stat
import struct
import sys
from dataclasses import replace

try:
    import numpy  # noqa: F401
except ImportError:
    print("convert: NumPy is needed: install it for this Python", file=sys.stderr)
    sys.exit(4)

from checkpoints.configs import read_configs
from checkpoints.failure import Failure, Misuse, Refused, listed, shown
from checkpoints.files import MAX_CHECKPOINT, Source
from checkpoints.labels import choose_labels
from checkpoints.model_file import try_model, write_model
from checkpoints.names import canonical
from checkpoints.network import HEAD_NONE, PRESETS, parameter_count
from checkpoints.preprocessing import INTERPOLATIONS, choose_preprocess
from checkpoints.read import open_checkpoint
from checkpoints.recognise import recognise, take_rgb

CONFIGS = ("config.json", "preprocessor_config.json")


# ---- Options ----

class Parser(argparse.ArgumentParser):
    def error(self, message):
        raise Misuse(f"{shown(message)} (see --help)")


def whole_number(low, high):
    def parse(text):
        if not re.fullmatch("[0-9]{1,9}", text) or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{shown(text, 40)} is no whole number from {low} to {high}")
        return int(text)
    return parse


def input_size(text):
    """N or HEIGHTxWIDTH as (height, width)."""
    sides = [whole_number(1, 16384)(part) for part in text.split("x")]
    if len(sides) > 2:
        raise argparse.ArgumentTypeError(f"{shown(text, 40)} is no size")
    return sides[0], sides[-1]


def numbers(positive):
    """A parser of comma-separated numbers that float32 can hold."""
    def parse(text):
        try:
            values = [struct.unpack("<f", struct.pack("<f", float(part)))[0] for part in text.split(",")]
        except (ValueError, OverflowError):
            values = []
        if not values or not all(math.isfinite(v) and (v > 0 or not positive) for v in values):
            raise argparse.ArgumentTypeError(f"{shown(text, 40)} is no list of {'positive ' * positive}numbers")
        return values
    return parse


def parse_options(arguments):
    parser = Parser(prog="convert.py", description=__doc__.split("\n", 1)[0], allow_abbrev=False)
    parser.add_argument("checkpoint", metavar="CHECKPOINT",
                        help="a .pth, .safetensors, .safetensors.index.json, .onnx or Keras .h5 file")
    parser.add_argument("-o", "--output", metavar="MODEL", help="the model file to write")
    parser.add_argument("--inspect", action="store_true", help="say what it is and whether it converts, write nothing")
    parser.add_argument("--arch", metavar="NAME", choices=PRESETS, help=f"refuse any other than: {', '.join(PRESETS)}")
    parser.add_argument("--config", metavar="FILE", action="append", default=[], help="timm's or Hugging Face's "
                        "config.json or preprocessor_config.json, for preprocessing and labels; may be given twice")
    parser.add_argument("--labels", metavar="FILE", help="class names, one a line (default: the config file's, or "
                        "ImageNet's where there are 1000 classes)")
    add_picture_options(parser)
    parser.add_argument("--stride-at", choices=("1x1", "3x3"), help="which convolution of a bottleneck strides: no "
                        "shape shows it (default: 3x3, but 1x1 for Keras; a config file or an ONNX graph says it)")
    parser.add_argument("--output-stride", type=int, choices=(8, 16), help="the last stages dilate instead of striding")
    parser.add_argument("--head", choices=("softmax", "sigmoid"), help="sigmoid for several labels a picture (default: "
                        "softmax)")
    options = parser.parse_args(arguments)
    if bool(options.output) == options.inspect:
        parser.error("either -o MODEL or --inspect is needed")
    return options


def add_picture_options(parser):
    parser.add_argument("--resize", metavar="N", type=whole_number(0, 16384), help="short side in pixels before the "
                        "crop; 0: no resize (default: 256 for a crop of 224, and so on; 0 for CIFAR's networks)")
    parser.add_argument("--crop", metavar="N|HxW", type=input_size, help="height and width of the network's input in "
                        "pixels (default: 224, 32 for CIFAR's networks)")
    parser.add_argument("--interpolation", choices=INTERPOLATIONS, help="of the resize (default: bilinear)")
    parser.add_argument("--mean", metavar="R,G,B", type=numbers(positive=False), help="(default: ImageNet's)")
    parser.add_argument("--std", metavar="R,G,B", type=numbers(positive=True), help="(default: ImageNet's)")
    parser.add_argument("--channels", choices=("rgb", "bgr"), help="in which order the network takes them; mean and "
                        "std are in the order RGB (default: rgb, but bgr for Keras)")


# ---- The conversion ----

def check_output(path, source):
    """Renaming would replace a device, and must not replace the checkpoint."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise Failure(f"{shown(path)}: cannot be written: {error.strerror}") from None
    if not stat.S_ISREG(status.st_mode):
        raise Failure(f"{shown(path)}: exists and is not a regular file")
    if (status.st_dev, status.st_ino) == source.identity:
        raise Misuse(f"{shown(path)}: is the checkpoint itself")


def settled(facts, options, config):
    """The facts that the reader found, under those of a config file, under those of the options."""
    return replace(facts, stride_at=options.stride_at or config.stride_at or facts.stride_at,
                   output_stride=options.output_stride or facts.output_stride,
                   head=options.head or config.head or facts.head, order=options.channels or facts.order)


def convert(options):
    """Do what the options ask for; returns the report."""
    config = read_configs(options.config)
    with Source(options.checkpoint, MAX_CHECKPOINT) as source, open_checkpoint(source) as checkpoint:
        if options.output:
            check_output(options.output, source)
        named = canonical(checkpoint.tensors)
        facts = settled(checkpoint.facts, options, config)
        network = recognise(named, facts)
        if options.arch and network.architecture != options.arch:
            raise Refused(f"is {network}, not {options.arch}")
        if facts.order == "bgr" and network.in_channels == 3:
            named.tensors = take_rgb(named.tensors)
            facts = replace(facts, mean=facts.mean and facts.mean[::-1], std=facts.std and facts.std[::-1])
        elif options.channels and network.in_channels != 3:
            raise Misuse(f"--channels {options.channels} is for 3 channels, the network has {network.in_channels}")
        preprocess = choose_preprocess(options, config, facts, network)
        labels, origin = choose_labels(options.labels, config, network.classes)
        size = (write_model(options.output, network, preprocess, labels, named.tensors) if options.output else
                try_model(network, labels, named.tensors))
    lines = report(options, network, checkpoint, named, (preprocess, origin, size))
    if config.squashes:
        lines.append("differs        its config squashes the whole picture to that size; here the middle is cropped")
    return "\n".join(lines)


def report(options, network, checkpoint, named, written):
    """The lines that say what was recognised and written."""
    preprocess, labels, size = written
    height, width = preprocess.size
    style = "its graph" if checkpoint.facts.geometry else f"names of {named.style}"
    prefix = f" behind {shown(named.prefix)}" if named.prefix else ""
    lines = [f"{shown(options.output or options.checkpoint)}: {'' if options.output else 'converts to '}{size:,} bytes",
             f"architecture   {network}",
             f"read from      {checkpoint.container}, {style}{prefix}",
             f"parameters     {parameter_count(network):,}",
             f"input          {network.in_channels} x {height} x {width}",
             f"classes        {'none, no head' if network.head == HEAD_NONE else f'{network.classes}, {labels}'}",
             f"preprocessing  {preprocess}"]
    if named.skipped:
        lines.append(f"skipped        {len(named.skipped)} tensors of other parts: {listed(named.skipped)}")
    unread = [name for name in CONFIGS if not options.config and
              os.path.exists(os.path.join(os.path.dirname(options.checkpoint), name))]
    if unread:
        lines.append(f"not read       {' and '.join(unread)} beside the checkpoint: --config reads such files")
    return lines


# ---- The command ----

def discard_stdout():
    """Keep Python from trying again, and complaining, when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main(arguments=None):
    """Run the command; returns its exit status."""
    try:
        options = parse_options(arguments)
        print(convert(options), flush=True)
        return 0
    except Refused as error:
        status, message = error.status, f"{shown(options.checkpoint)}: {error}"
    except Failure as error:
        status, message = error.status, error
    except MemoryError:
        status, message = Failure.status, "out of memory"
    except OSError as error:  # from stdout: the others are caught where their file is known
        discard_stdout()
        status, message = Failure.status, f"the report cannot be written: {error.strerror}"
    print(f"convert: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    if sys.stdout:  # None where it is closed
        sys.stdout.reconfigure(errors="backslashreplace")  # a path need not fit the terminal's encoding
    sys.exit(main())
