#!/usr/bin/env python3
"""Make the fixtures of test_topology: what PyTorch says of networks with formula-made weights.

    python3 make_topologies.py

topologies.txt   the networks: their configs, counts and layers with output shapes
topologies.f32   their logits for formula-made inputs, in the order of the `logits` lines

Needs numpy, torch and torchvision (the fixtures here: torch 1.13, torchvision 0.14). The logits are computed in
float64 and rounded to float32 at the end, so that they owe nothing to anyone's order of summation. Takes some minutes.

The formula, which test_topology.c has too, is exact in both languages:

    noise(t, e)    fmix32 (the finaliser of MurmurHash3) of 0x9e3779b1 * e + 0x85ebca77 * t + 0x165667b1,
                   as a signed number over 2^31, cut to 24 bits: in [-1, 1)
    weight         noise / 2^k, k the smallest with fan_in <= 12 * 4^k: the power of two nearest to He's limit
    scale          1 + noise / 4; a quarter of it in a block's last batch normalisation, so that sums stay small
    shift, mean    noise / 8
    variance       1 + noise / 2
    bias           noise / 8
    input          2 * noise of the 16 x 16 square + noise / 2 of the element, each cut to 12 bits

where t is the index of the tensor in the model file (models/FORMAT.md) and e the index of the element in the tensor.
"""
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

class V1Bottleneck(Bottleneck):
    """With the stride in the first 1x1, as in the paper."""

    def __init__(self, *args, **named):
        super().__init__(*args, **named)
        self.conv1.stride, self.conv2.stride = self.conv2.stride, (1, 1)


class Net(nn.Module):
    """torchvision's ResNet, made of its own blocks, for any width, depth and number of stages."""

    def __init__(self, kind, blocks, width, per_group, v1, in_channels, classes):
        super().__init__()
        make = BasicBlock if kind == 1 else V1Bottleneck if v1 else Bottleneck
        norm = lambda channels: nn.BatchNorm2d(channels, eps=EPSILON)
        self.conv1 = nn.Conv2d(in_channels, width, 7, 2, 3, bias=False)
        self.bn1 = norm(width)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.stages = [f"layer{s + 1}" for s in range(4) if blocks[s]]
        channels = width
        for s, name in enumerate(self.stages):
            planes, layer = width << s, []
            for b in range(blocks[s]):
                stride = 2 if s and not b else 1
                out = planes * make.expansion
                down = None
                if stride != 1 or channels != out:
                    down = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), norm(out))
                named = {"base_width": per_group} if kind == 2 else {}
                layer.append(make(channels, planes, stride, down, 1, norm_layer=norm, **named))
                channels = out
            setattr(self, name, nn.Sequential(*layer))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x):
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        for name in self.stages:
            x = getattr(self, name)(x)
        return self.fc(self.avgpool(x).flatten(1))


def make_net(name, *config):
    """torchvision's own where it has one of this name."""
    if not hasattr(torchvision.models, name):
        return Net(*config).eval()
    net = getattr(torchvision.models, name)(weights=None).eval()
    net.stages = ["layer1", "layer2", "layer3", "layer4"]
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = EPSILON
    return net


def units(net):
    """(name, convolution, batch normalisation, is it a block's last) in the model file's order."""
    yield "conv1", net.conv1, net.bn1, False
    for stage in net.stages:
        for b, block in enumerate(getattr(net, stage)):
            name = f"{stage}.{b}"
            if block.downsample is not None:
                yield f"{name}.downsample", block.downsample[0], block.downsample[1], False
            last = 3 if isinstance(block, Bottleneck) else 2
            for k in range(1, last + 1):
                yield f"{name}.conv{k}", getattr(block, f"conv{k}"), getattr(block, f"bn{k}"), k == last


def fill(net):
    index = 0

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

    for _, conv, bn, last in units(net):
        weights(conv.weight)
        take(bn.weight, lambda n: (1 + n / 4) * (0.25 if last else 1))
        take(bn.bias, lambda n: n / 8)
        take(bn.running_mean, lambda n: n / 8)
        take(bn.running_var, lambda n: 1 + n / 2)
    weights(net.fc.weight)
    take(net.fc.bias, lambda n: n / 8)


def shapes(net, channels, size):
    """name -> (channels, height, width) of every layer's output, and multiply-adds."""
    seen, macs, hooks = {}, 0, []

    def hook(name, module):
        def note(_, inputs, output):
            nonlocal macs
            seen[name] = tuple(output.shape[1:])
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                macs += output.numel() * module.weight[0].numel()
        hooks.append(module.register_forward_hook(note))

    for name, conv, _, _ in units(net):
        hook(name, conv)
    for name in ("maxpool", "avgpool", "fc"):
        hook(name, getattr(net, name))
    net(torch.zeros(1, channels, *size, dtype=next(net.parameters()).dtype))
    for h in hooks:
        h.remove()
    return seen, macs


# ---- The fixtures ----

SMALL = (65, 97)  # odd, and every map down to the last is odd or not square
# name: kind, blocks, base width, width per group, v1, input channels, classes, sizes of the logits
NETS = {
    "resnet18": (1, (2, 2, 2, 2), 64, 64, 0, 3, 1000, [(224, 224), SMALL]),
    "resnet34": (1, (3, 4, 6, 3), 64, 64, 0, 3, 1000, [(224, 224), SMALL]),
    "resnet50": (2, (3, 4, 6, 3), 64, 64, 0, 3, 1000, [(224, 224), SMALL]),
    "resnet101": (2, (3, 4, 23, 3), 64, 64, 0, 3, 1000, [(224, 224), SMALL]),
    "resnet152": (2, (3, 8, 36, 3), 64, 64, 0, 3, 1000, [(224, 224), SMALL]),
    "wide_resnet50_2": (2, (3, 4, 6, 3), 64, 128, 0, 3, 1000, []),
    "wide": (2, (1, 1, 1, 1), 24, 128, 0, 3, 10, [SMALL]),
    "narrow": (2, (2, 1, 0, 0), 5, 24, 0, 3, 3, [(31, 20)]),
    "grey": (2, (1, 2, 0, 0), 16, 64, 0, 1, 7, [(37, 53)]),
    "v1": (2, (1, 2, 2, 1), 16, 64, 1, 3, 11, [SMALL, (1, 1)]),
    "one_stage": (1, (3, 0, 0, 0), 20, 64, 0, 4, 5, [(29, 64)]),
    "most_channels": (1, (1, 1, 1, 0), 33, 64, 0, 16, 100, [(50, 49), (2, 3)]),
}


def layer_lines(net, seen, small):
    def line(name, kind, c_in, c_out, kernel, stride, relu, residual):
        return (f"layer {name} {kind} {c_in} {c_out} {kernel} {stride} {relu} {residual} "
                f"{' '.join(map(str, (seen[name] + (1, 1))[1:3] + (small[name] + (1, 1))[1:3]))}\n")

    for name, conv, _, last in units(net):
        relu = int("downsample" not in name)
        yield line(name, "conv", conv.in_channels, conv.out_channels, conv.kernel_size[0], conv.stride[0], relu,
                   int(last))
        if name == "conv1":
            yield line("maxpool", "maxpool", conv.out_channels, conv.out_channels, 3, 2, 0, 0)
    features = net.fc.in_features
    yield line("avgpool", "avgpool", features, features, 0, 0, 0, 0)
    yield line("fc", "linear", features, net.fc.out_features, 1, 1, 0, 0)


def main():
    logits = []
    with torch.no_grad(), open(os.path.join(HERE, "topologies.txt"), "w", newline="\n") as text:
        text.write("# Made by make_topologies.py; read by test_topology.c. All numbers are PyTorch's.\n"
                   "# net NAME kind blocks[4] base_width width_per_group stride_at in_channels classes"
                   " tensors convs parameters macs\n"
                   f"# layer NAME kind in out kernel stride relu residual, map at 224 x 224, map at {SMALL[0]} x"
                   f" {SMALL[1]}\n# logits HEIGHT WIDTH\n")
        for name, (kind, blocks, width, per_group, v1, channels, classes, sizes) in NETS.items():
            print(name, flush=True)
            net = make_net(name, kind, blocks, width, per_group, v1, channels, classes)
            seen, macs = shapes(net, channels, (224, 224))
            small, _ = shapes(net, channels, SMALL)
            counts = (len(net.state_dict()), sum(isinstance(m, nn.Conv2d) for m in net.modules()),
                      sum(p.numel() for p in net.parameters()), macs)
            numbers = (kind, *blocks, width, per_group, v1, channels, classes, *counts)
            text.write(f"net {name} {' '.join(map(str, numbers))}\n")
            text.writelines(layer_lines(net, seen, small))
            if sizes:
                fill(net.double())
            for height, columns in sizes:
                answer = net(torch.from_numpy(make_input(channels, height, columns))[None])[0].numpy()
                text.write(f"logits {height} {columns}\n")
                logits.append(answer.astype("<f4"))
                print(f"  {height} x {columns}: largest {abs(answer).max():.3g}, spread {answer.std():.3g}", flush=True)
    np.concatenate(logits).tofile(os.path.join(HERE, "topologies.f32"))


if __name__ == "__main__":
    main()
