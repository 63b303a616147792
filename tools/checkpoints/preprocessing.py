"""What is done to a picture before a network sees it: chosen from options, config files and the checkpoint."""
from dataclasses import dataclass

from .failure import Misuse
from .network import STEM_3X3

INTERPOLATIONS = ("bilinear", "bicubic")
IMAGENET_MEAN = [0.485, 0.456, 0.406]
IMAGENET_STD = [0.229, 0.224, 0.225]


@dataclass
class Preprocess:
    resize: int  # short side in pixels; 0: no resize
    size: tuple  # height and width of the crop
    interpolation: str
    mean: list  # of each input channel, after u / 255
    std: list

    def __str__(self):
        resize = f"resize {self.resize} {self.interpolation}" if self.resize else "no resize"
        mean, std = (",".join(f"{value:.6g}" for value in values) for values in (self.mean, self.std))
        height, width = self.size
        return f"{resize}, crop {height if height == width else f'{height}x{width}'}, mean {mean}, std {std}"


def first(*values):
    return next(value for value in values if value is not None)


def choose_preprocess(options, config, facts, network):
    """An option counts before a config file, this before what the checkpoint says, and this before what is usual:
    torchvision's preset, or CIFAR's pictures as they are."""
    small = network.stem == STEM_3X3
    size = first(options.crop, config.size, facts.size, (32, 32) if small else (224, 224))
    resize = first(options.resize, config.resize, 0 if small else min(size) * 8 // 7)
    interpolation = first(options.interpolation, config.interpolation, "bilinear")
    mean, std = (channel_numbers(name, getattr(options, name), getattr(config, name), getattr(facts, name),
                                 network.in_channels) for name in ("mean", "std"))
    return Preprocess(min(resize, 16384), size, interpolation, mean, std)


def channel_numbers(name, option, config, known, channels):
    """Mean or std of each channel; ImageNet's mean nothing to other channels than three."""
    usual = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}[name] if channels == 3 else (
        [float(name == "std")] * channels)
    if known is not None and len(known) != channels:
        known = None
    values = first(option, config, known, usual)
    if len(values) != channels:
        origin = f"--{name}" if option else f"the config file's {name}"
        raise Misuse(f"{origin} has {len(values)} numbers, the network has {channels} input channels")
    return values
