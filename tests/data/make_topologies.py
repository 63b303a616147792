#!/usr/bin/env python3
"""Make the fixtures of test_topology: what PyTorch says of networks with formula-made weights.

    python3 make_topologies.py

topologies.txt   the networks: their configs, counts and layers with output shapes
topologies.f32   their logits for formula-made inputs, in the order of the `logits` lines

Needs numpy, torch and torchvision (the fixtures here: torch 1.13, torchvision 0.14). The logits are computed in
float64 and rounded to float32 at the end, so that they owe nothing to anyone's order of summation. Takes some minutes.
Networks of torchvision's are its own; what it does not have is put together here, as timm and the papers have it.

The formula, which test_topology.c has too, is exact in both languages:

    noise(t, e)    fmix32 (the finaliser of MurmurHash3) of 0x9e3779b1 * e + 0x85ebca77 * t + 0x165667b1,
                   as a signed number over 2^31, cut to 24 bits: in [-1, 1)
    weight         noise / 2^k, k the smallest with fan_in <= 12 * 4^k: the power of two nearest to He's limit
    scale          1 + noise / 4; a quarter of it in a block's last batch normalisation, so that sums stay small, and a
                   64th where a stage has 100 blocks or more
    shift, mean    noise / 8
    variance       1 + noise / 2
    bias           noise / 8
    input          2 * noise of the 16 x 16 square + noise / 2 of the element, each cut to 12 bits

where t is the index of the tensor in the model file (models/FORMAT.md) and e the index of the element in the tensor.
"""
import dataclasses
import os

import numpy as np
import torch
import torchvision
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck

HERE = os.path.dirname(os.path.abspath(__file__))
EPSILON = float(np.float32(1e-5))  # what the model file can hold
INPUT_SQUARES, INPUT_ELEMENTS = 1 << 16, 1 << 16 | 1  # tensor indices beyond any network's


def noise(tensor, elements, bits=24):
    h = np.asarray(elements).astype(np.uint32) * np.uint32(0x9E3779B1)
    h = h + np.uint32((0x85EBCA77 * tensor + 0x165667B1) & 0xFFFFFFFF)
    h ^= h >> np.uint32(16)
    h *= np.uint32(0x85EBCA6B)
    h ^= h >> np.uint32(13)
    h *= np.uint32(0xC2B2AE35)
    h ^= h >> np.uint32(16)
    return (h.view(np.int32) >> (32 - bits)).astype(np.float64) / 2 ** (bits - 1)


def make_input(channels, height, width):
    c, y, x = np.mgrid[0:channels, 0:height, 0:width]
    squares = noise(INPUT_SQUARES, (c * 4096 + y // 16) * 4096 + x // 16, 12)
    return 2 * squares + noise(INPUT_ELEMENTS, (c * height + y) * width + x, 12) / 2


# ---- The networks ----

SMALL = (65, 97)  # odd, and every map down to the last is odd or not square
STEM_7X7, DEEP, TIERED, CIFAR = range(4)
PROJECTION, AVERAGE, ZEROS = range(3)
SOFTMAX, SIGMOID, NO_HEAD = range(3)


@dataclasses.dataclass
class Config:
    """A network as the model file's header has it, and the sizes of the inputs whose logits are wanted."""

    kind: int
    blocks: tuple
    sizes: tuple = ()
    width: int = 64
    groups: int = 1
    per_group: int = 64
    v1: int = 0
    stem: int = STEM_7X7
    shortcut: int = PROJECTION
    attention_width: int = 0  # 0: no attention
    head: int = SOFTMAX
    output_stride: int = 0
    channels: int = 3
    classes: int = 1000
    listed: bool = True  # its layers

    def numbers(self):
        return (self.kind, *self.blocks, self.width, self.groups, self.per_group, self.v1, self.stem, self.shortcut,
                int(self.attention_width > 0), self.attention_width, self.head, self.output_stride, self.channels,
                self.classes)


class V1Bottleneck(Bottleneck):
    """With the stride in the first 1x1, as in the paper."""

    def __init__(self, *args, **named):
        super().__init__(*args, **named)
        if self.conv2.stride != (1, 1):
            self.conv1.stride, self.conv2.stride = self.conv2.stride, (1, 1)


class Zeros(nn.Module):
    """Option A: every second pixel, and zeros in the new channels, half of them in front."""

    def forward(self, x):
        c = x.shape[1]
        return nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, c // 2, c - c // 2))


class SqueezeExcite(nn.Module):
    def __init__(self, channels, least):
        super().__init__()
        squeezed = max(least, channels // 16)
        self.mean = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Linear(channels, squeezed)
        self.fc2 = nn.Linear(squeezed, channels)

    def forward(self, x):
        gate = torch.sigmoid(self.fc2(torch.relu(self.fc1(self.mean(x).flatten(1)))))
        return x * gate[:, :, None, None]


def norm(channels):
    return nn.BatchNorm2d(channels, eps=EPSILON)


def make_stem(c):
    """As timm: a deep one is a sequence of convolutions, whose last batch normalisation is bn1."""
    if c.stem == STEM_7X7:
        return nn.Conv2d(c.channels, c.width, 7, 2, 3, bias=False)
    if c.stem == CIFAR:
        return nn.Conv2d(c.channels, c.width, 3, 1, 1, bias=False)
    first = c.width // 8 * 3 if c.stem == TIERED else c.width // 2
    layers, channels = [], c.channels
    for out, stride in (first, 2), (c.width // 2, 1):
        layers += [nn.Conv2d(channels, out, 3, stride, 1, bias=False), norm(out), nn.ReLU()]
        channels = out
    return nn.Sequential(*layers, nn.Conv2d(channels, c.width, 3, 1, 1, bias=False))


class Net(nn.Module):
    """torchvision's ResNet, made of its own blocks, with what it does not have."""

    def __init__(self, c):
        super().__init__()
        self.conv1 = make_stem(c)
        self.bn1 = norm(c.width)
        self.maxpool = nn.Identity() if c.stem == CIFAR else nn.MaxPool2d(3, 2, 1)
        self.stages = [f"layer{s + 1}" for s in range(4) if c.blocks[s]]
        channels, dilation = c.width, 1
        for s, name in enumerate(self.stages):
            stride, before = 2 if s else 1, dilation
            if c.output_stride and s >= {8: 2, 16: 3}[c.output_stride]:
                stride, dilation = 1, 2 * dilation
            layer = []
            for b in range(c.blocks[s]):
                block = self.make_block(c, channels, c.width << s, (stride, before) if b == 0 else (1, dilation))
                channels = (c.width << s) * block.expansion
                layer.append(block)
            setattr(self, name, nn.Sequential(*layer))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Identity() if c.head == NO_HEAD else nn.Linear(channels, c.classes)

    @staticmethod
    def make_block(c, channels, planes, place):
        stride, dilation = place
        make = BasicBlock if c.kind == 1 else V1Bottleneck if c.v1 else Bottleneck
        out, down = planes * make.expansion, None
        if (stride != 1 or channels != out) and c.shortcut == ZEROS:
            down = Zeros()
        elif stride != 1 and c.shortcut == AVERAGE:
            pool = nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False)
            down = nn.Sequential(pool, nn.Conv2d(channels, out, 1, bias=False), norm(out))
        elif stride != 1 or channels != out:
            down = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), norm(out))
        named = {"groups": c.groups, "base_width": c.per_group, "dilation": dilation} if c.kind == 2 else {}
        block = make(channels, planes, stride, down, norm_layer=norm, **named)
        if c.attention_width:
            last = "bn2" if c.kind == 1 else "bn3"
            setattr(block, last, nn.Sequential(getattr(block, last), SqueezeExcite(out, c.attention_width)))
        return block

    def forward(self, x):
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        for name in self.stages:
            x = getattr(self, name)(x)
        return self.fc(self.avgpool(x).flatten(1))


def make_net(name, c):
    """torchvision's own where it has one of this name; `_os8` and `_os16` are its dilation."""
    base, _, stride = name.partition("_os")
    if not hasattr(torchvision.models, base):
        return Net(c).eval()
    dilated = {"": (False, False, False), "16": (False, False, True), "8": (False, True, True)}[stride]
    net = getattr(torchvision.models, base)(weights=None, replace_stride_with_dilation=dilated).eval()
    net.stages = ["layer1", "layer2", "layer3", "layer4"]
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = EPSILON
    return net


# ---- Their layers, in the model file's order ----

@dataclasses.dataclass
class Layer:
    name: str
    kind: str
    module: nn.Module
    bn: nn.Module = None
    last: bool = False  # of a block's convolutions
    relu: int = 0
    residual: int = 0


def stem_layers(net):
    if isinstance(net.conv1, nn.Sequential):
        yield Layer("conv1.0", "conv", net.conv1[0], net.conv1[1], relu=1)
        yield Layer("conv1.3", "conv", net.conv1[3], net.conv1[4], relu=1)
        yield Layer("conv1.6", "conv", net.conv1[6], net.bn1, relu=1)
    else:
        yield Layer("conv1", "conv", net.conv1, net.bn1, relu=1)
    if isinstance(net.maxpool, nn.MaxPool2d):
        yield Layer("maxpool", "maxpool", net.maxpool)


def block_layers(name, block):
    if isinstance(block.downsample, Zeros):
        yield Layer(f"{name}.shortcut", "subsample", block.downsample)
    elif block.downsample is not None:
        *pool, conv, bn = block.downsample
        if pool:
            yield Layer(f"{name}.downsample.0", "avgpool", pool[0])
        yield Layer(f"{name}.downsample", "conv", conv, bn)
    convs = 3 if isinstance(block, Bottleneck) else 2
    for k in range(1, convs):
        yield Layer(f"{name}.conv{k}", "conv", getattr(block, f"conv{k}"), getattr(block, f"bn{k}"), relu=1)
    conv, bn = getattr(block, f"conv{convs}"), getattr(block, f"bn{convs}")
    attention = isinstance(bn, nn.Sequential)
    yield Layer(f"{name}.conv{convs}", "conv", conv, bn[0] if attention else bn, True, int(not attention),
                int(not attention))
    if attention:
        se = bn[1]
        yield Layer(f"{name}.se.mean", "avgpool", se.mean)
        yield Layer(f"{name}.se.fc1", "linear", se.fc1, relu=1)
        yield Layer(f"{name}.se.fc2", "linear", se.fc2)
        yield Layer(f"{name}.se", "scale", se, relu=1, residual=1)


def layers(net):
    yield from stem_layers(net)
    for stage in net.stages:
        for b, block in enumerate(getattr(net, stage)):
            yield from block_layers(f"{stage}.{b}", block)
    yield Layer("avgpool", "avgpool", net.avgpool)
    if isinstance(net.fc, nn.Linear):
        yield Layer("fc", "linear", net.fc)


def fill(net, blocks):
    index, last_scale = 0, 1 / 4 if max(blocks) < 100 else 1 / 64

    def take(tensor, transform):
        nonlocal index
        values = transform(noise(index, np.arange(tensor.numel(), dtype=np.uint32)))
        tensor.data = torch.from_numpy(values.reshape(tensor.shape))
        index += 1

    def weights(tensor):
        fan_in, k = tensor[0].numel(), 0
        while fan_in > 12 * 4 ** k:
            k += 1
        take(tensor, lambda n: n / 2 ** k)

    for layer in layers(net):
        if layer.kind == "conv":
            weights(layer.module.weight)
            take(layer.bn.weight, lambda n, last=layer.last: (1 + n / 4) * (last_scale if last else 1))
            take(layer.bn.bias, lambda n: n / 8)
            take(layer.bn.running_mean, lambda n: n / 8)
            take(layer.bn.running_var, lambda n: 1 + n / 2)
        elif layer.kind == "linear":
            weights(layer.module.weight)
            take(layer.module.bias, lambda n: n / 8)


def shapes(net, channels, size):
    """name -> ((channels, height, width) of what a layer reads, of what it gives), and multiply-adds."""
    seen, macs, hooks = {}, 0, []

    def hook(layer):
        def note(_, inputs, output):
            nonlocal macs
            seen[layer.name] = tuple((tuple(x.shape[1:]) + (1, 1))[:3] for x in (inputs[0], output))
            if isinstance(layer.module, (nn.Conv2d, nn.Linear)):
                macs += output.numel() * layer.module.weight[0].numel()
        hooks.append(layer.module.register_forward_hook(note))

    for layer in layers(net):
        hook(layer)
    net(torch.zeros(1, channels, *size, dtype=next(net.parameters()).dtype))
    for h in hooks:
        h.remove()
    return seen, macs


# ---- The fixtures ----

NARROW = (513, 259)
NETS = {
    "resnet18": Config(1, (2, 2, 2, 2), ((224, 224), SMALL)),
    "resnet34": Config(1, (3, 4, 6, 3), ((224, 224), SMALL)),
    "resnet50": Config(2, (3, 4, 6, 3), ((224, 224), SMALL)),
    "resnet101": Config(2, (3, 4, 23, 3), ((224, 224), SMALL)),
    "resnet152": Config(2, (3, 8, 36, 3), ((224, 224), SMALL)),
    "wide_resnet50_2": Config(2, (3, 4, 6, 3), (SMALL,), per_group=128),
    "wide_resnet101_2": Config(2, (3, 4, 23, 3), (SMALL,), per_group=128, listed=False),
    "resnext50_32x4d": Config(2, (3, 4, 6, 3), ((224, 224), SMALL), groups=32, per_group=4),
    "resnext101_32x8d": Config(2, (3, 4, 23, 3), (SMALL,), groups=32, per_group=8, listed=False),
    "resnet50_os8": Config(2, (3, 4, 6, 3), (SMALL,), output_stride=8),
    "resnet50_os16": Config(2, (3, 4, 6, 3), (SMALL,), output_stride=16),
    "resnet50v1": Config(2, (3, 4, 6, 3), (SMALL,), v1=1),
    "resnet34d": Config(1, (3, 4, 6, 3), (SMALL,), stem=DEEP, shortcut=AVERAGE),
    "resnet50d": Config(2, (3, 4, 6, 3), (SMALL,), stem=DEEP, shortcut=AVERAGE),
    "seresnet18": Config(1, (2, 2, 2, 2), (SMALL,), attention_width=8),
    "seresnet50": Config(2, (3, 4, 6, 3), (SMALL,), attention_width=8),
    "resnet20": Config(1, (3, 3, 3, 0), ((32, 32), (33, 47)), 16, stem=CIFAR, shortcut=ZEROS, classes=10),
    "depth1202": Config(1, (200, 200, 200, 0), ((32, 32),), 4, stem=CIFAR, shortcut=ZEROS, classes=10, listed=False),
    "wide": Config(2, (1, 1, 1, 1), (SMALL,), 24, per_group=128, classes=10),
    "narrow": Config(2, (2, 1, 0, 0), ((31, 20),), 5, per_group=24, classes=3),
    "grey": Config(2, (1, 2, 0, 0), ((37, 53), NARROW), 16, channels=1, classes=7),
    "v1": Config(2, (1, 2, 2, 1), (SMALL, (1, 1)), 16, v1=1, classes=11),
    "one_stage": Config(1, (3, 0, 0, 0), ((29, 64),), 20, channels=4, classes=5),
    "most_channels": Config(1, (1, 1, 1, 0), ((50, 49), (2, 3)), 33, channels=16, classes=100),
    "deep": Config(1, (1, 1, 1, 1), (NARROW, (32, 32)), 16, stem=DEEP, channels=4, classes=1),
    "tiered": Config(2, (1, 2, 1, 0), ((127, 203), (1, 1)), 16, stem=TIERED, shortcut=AVERAGE, channels=16, classes=7),
    "squeezed": Config(2, (2, 1, 1, 0), (SMALL, NARROW), 12, attention_width=3, head=SIGMOID, channels=4, classes=9),
    "headless": Config(1, (1, 2, 1, 1), (SMALL, (33, 32)), 8, stem=DEEP, shortcut=AVERAGE, attention_width=8,
                       head=NO_HEAD, channels=1, classes=0),
    "zeros": Config(1, (1, 1, 1, 1), ((45, 39), (1, 2)), 6, shortcut=ZEROS, attention_width=1, classes=4),
    "grouped": Config(2, (1, 2, 1, 1), (SMALL, (224, 33)), 16, groups=3, per_group=16, classes=6),
    "dilated": Config(2, (1, 1, 2, 2), (SMALL, (9, 200)), 16, groups=2, per_group=32, v1=1, stem=DEEP,
                      attention_width=8, output_stride=8, classes=6),
}


def layer_lines(net, seen, small):
    for layer in layers(net):
        module = layer.module
        pair = lambda value: value[0] if isinstance(value, tuple) else value
        kernel, stride = (pair(getattr(module, name, 1)) for name in ("kernel_size", "stride"))
        if layer.kind == "subsample":
            stride = 2
        groups, dilation = (pair(getattr(module, name, 1)) for name in ("groups", "dilation"))
        (c_in, _, _), (c_out, height, width) = seen[layer.name]
        yield (f"layer {layer.name} {layer.kind} {c_in} {c_out} {kernel} {stride} {groups} {dilation} {layer.relu} "
               f"{layer.residual} {height} {width} {small[layer.name][1][1]} {small[layer.name][1][2]}\n")


def main():
    logits = []
    with torch.no_grad(), open(os.path.join(HERE, "topologies.txt"), "w", newline="\n") as text:
        text.write("# Made by make_topologies.py; read by test_topology.c. All numbers are PyTorch's.\n"
                   "# net NAME kind blocks[4] base_width groups width_per_group stride_at stem shortcut attention"
                   " attention_width head output_stride in_channels classes tensors convs parameters macs\n"
                   "# layer NAME kind in out kernel stride groups dilation relu residual, map at 224 x 224, map at"
                   f" {SMALL[0]} x {SMALL[1]}\n# logits HEIGHT WIDTH\n")
        for name, config in NETS.items():
            print(name, flush=True)
            net = make_net(name, config)
            seen, macs = shapes(net, config.channels, (224, 224))
            counts = (len(net.state_dict()), sum(isinstance(m, nn.Conv2d) for m in net.modules()),
                      sum(p.numel() for p in net.parameters()), macs)
            text.write(f"net {name} {' '.join(map(str, config.numbers() + counts))}\n")
            if config.listed:
                text.writelines(layer_lines(net, seen, shapes(net, config.channels, SMALL)[0]))
            if config.sizes:
                fill(net.double(), config.blocks)
            for height, width in config.sizes:
                answer = net(torch.from_numpy(make_input(config.channels, height, width))[None])[0].numpy()
                text.write(f"logits {height} {width}\n")
                logits.append(answer.astype("<f4"))
                print(f"  {height} x {width}: largest {abs(answer).max():.3g}, spread {answer.std():.3g}", flush=True)
    np.concatenate(logits).tofile(os.path.join(HERE, "topologies.f32"))


if __name__ == "__main__":
    main()
