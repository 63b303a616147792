#!/usr/bin/env python3
"""Trains the default model: a ResNet-18 of base width 32 on the ten Imagenette classes, from random weights.

    train_default.py DATA --out DIR             train; DATA holds train/CLASS/*.jpg and val/CLASS/*.jpg
    train_default.py DATA --out DIR --resume    go on from DIR/checkpoint.pt, exactly where it stopped; with another
                                                --epochs, the rest of the schedule is stretched or pressed to fit
    train_default.py DATA --evaluate DIR/default.pth [--size RESIZE CROP] [--confusion PICTURE.png]

Training writes DIR/default.pth (a state dict with torchvision's names, f32, averaged weights), DIR/labels.txt and
DIR/log.txt. It needs PyTorch, NumPy and Pillow, and is never needed to build or use the library.
"""
import argparse
import copy
import math
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import nn
from torch.nn import functional as F

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
PIXELS = 144  # the photographs' size as they are stored
WIDTH = 32  # channels of the first stage: 2.8 M parameters, 11.2 MB in f32
EVAL_SIZES = ((128, 128), (144, 144), (160, 144), (160, 160), (176, 160), (176, 176),  # (resize, crop)
              (192, 160), (192, 176), (192, 192), (208, 192), (208, 208), (224, 208), (224, 224))

# (share of the epochs at which it begins, image size): small pictures first, as early epochs learn coarse things.
SIZES = ((0.0, 96), (0.3, 112), (0.55, 128), (0.8, 144))


# ---- The network, under torchvision's names ----

class BasicBlock(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(x)) + shortcut, inplace=True)


class ResNet18(nn.Module):
    def __init__(self, width, classes):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = self.stage(width, width, 1)
        self.layer2 = self.stage(width, 2 * width, 2)
        self.layer3 = self.stage(2 * width, 4 * width, 2)
        self.layer4 = self.stage(4 * width, 8 * width, 2)
        self.fc = nn.Linear(8 * width, classes)
        self.initialise()

    @staticmethod
    def stage(inputs, outputs, stride):
        return nn.Sequential(BasicBlock(inputs, outputs, stride), BasicBlock(outputs, outputs, 1))

    def initialise(self):
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, BasicBlock):
                nn.init.zeros_(module.bn2.weight)  # every block begins as the identity

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x)), inplace=True), 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3)))


# ---- The photographs ----

def class_names(data):
    return sorted(entry.name for entry in (data / "train").iterdir() if entry.is_dir())


def load_split(folder, names, limit):
    """All photographs of train/ or val/ as one uint8 tensor N x 3 x H x W, and their class indices."""
    pictures, labels = [], []
    for index, name in enumerate(names):
        for path in sorted((folder / name).glob("*.jpg"))[:limit]:
            with Image.open(path) as image:
                pictures.append(np.asarray(resize_and_crop(image.convert("RGB"), PIXELS, PIXELS)))
            labels.append(index)
    return as_tensor(pictures), torch.tensor(labels)


def as_tensor(pictures):
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)


def resize_and_crop(image, resize, crop):
    """Short side to `resize` (bilinear, antialiased), then the central square, as torchvision does."""
    width, height = image.size
    short = min(width, height)
    if short != resize:
        image = image.resize((int(resize * width / short), int(resize * height / short)), Image.BILINEAR)
    left, top = round((image.width - crop) / 2), round((image.height - crop) / 2)
    return image.crop((left, top, left + crop, top + crop))


def to_input(pictures):
    """uint8 N x 3 x H x W to floats in 0..1, channels last: twice as fast as the default layout on a CPU."""
    return pictures.float().div_(255).contiguous(memory_format=torch.channels_last)


def normalise(x):
    shape = (1, 3, 1, 1)
    return (x - x.new_tensor(MEAN).view(shape)) / x.new_tensor(STD).view(shape)


# ---- Augmentation, a whole batch at a time ----

def uniform(shape, low, high, random):
    return torch.empty(shape).uniform_(low, high, generator=random)


def random_resized_crop(x, size, random):
    """A random part of each picture (30 to 100 % of its area, turned a little, mirrored or not) at size x size."""
    count = len(x)
    area = uniform(count, 0.3, 1.0, random)
    ratio = uniform(count, math.log(3 / 4), math.log(4 / 3), random).exp()
    half_width, half_height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    centre_x = uniform(count, -1, 1, random) * (1 - half_width)
    centre_y = uniform(count, -1, 1, random) * (1 - half_height)
    angle = uniform(count, -0.15, 0.15, random)
    mirror = torch.randint(0, 2, (count,), generator=random) * 2 - 1
    rows = (torch.stack((mirror * half_width * angle.cos(), -half_height * angle.sin(), centre_x), 1),
            torch.stack((mirror * half_width * angle.sin(), half_height * angle.cos(), centre_y), 1))
    grid = F.affine_grid(torch.stack(rows, 1), (count, 3, size, size), align_corners=False)
    return F.grid_sample(x, grid.to(x.device), mode="bilinear", padding_mode="reflection", align_corners=False)


def colour_jitter(x, random):
    """Random brightness, contrast, saturation and tint."""
    def factor(spread, channels=1):
        return uniform((len(x), channels, 1, 1), 1 - spread, 1 + spread, random).to(x.device)

    grey = x.mean(1, keepdim=True)
    x = grey + (x - grey) * factor(0.4)
    level = x.mean((1, 2, 3), keepdim=True)
    x = level + (x - level) * factor(0.4)
    return (x * factor(0.3) * factor(0.06, 3)).clamp(0, 1)


def training_input(pictures, size, random, device):
    x = to_input(pictures.to(device))
    return normalise(colour_jitter(random_resized_crop(x, size, random), random))


# ---- Training ----

class Workers:
    """Threads that share each batch, a copy of the network each.

    One process on N cores would do without the copies, but the convolutions' own threads wait for each other in busy
    loops, so that any other load on the machine slows them down many times over; these sleep.
    """

    def __init__(self, model, count):
        self.model, self.copies = model, [copy.deepcopy(model) for _ in range(count)]
        self.pool = ThreadPoolExecutor(count)
        for replica in self.copies:
            for shared, own in zip(model.parameters(), replica.parameters()):
                own.data = shared.data  # the optimizer's steps reach every copy

    def gradients(self, inputs, labels):
        """Puts the mean gradient into the model; the mean loss. Each input is a function, which its thread calls."""
        losses = list(self.pool.map(forward_backward, self.copies, inputs, labels))
        for shared, *own in zip(self.model.parameters(), *(replica.parameters() for replica in self.copies)):
            shared.grad = sum(parameter.grad for parameter in own) / len(own)
        self.share_statistics()
        return sum(losses) / len(losses)

    @torch.no_grad()
    def share_statistics(self):
        """BN's running statistics are the mean of the copies', in each copy too: a resumed run starts the same."""
        for shared, *own in zip(self.model.buffers(), *(replica.buffers() for replica in self.copies)):
            if shared.is_floating_point():
                shared.copy_(sum(own) / len(own))
                for statistic in own:
                    statistic.copy_(shared)


def forward_backward(model, make_input, labels):
    x = make_input().contiguous(memory_format=torch.channels_last)
    with torch.autocast(x.device.type, torch.bfloat16):  # half the time of f32 on a CPU that has bf16
        scores = model(x)
    loss = F.cross_entropy(scores.float(), labels.to(x.device), label_smoothing=0.1)
    model.zero_grad(set_to_none=True)
    loss.backward()
    return loss.item()


def size_at(epoch, epochs):
    return [size for begin, size in SIZES if epoch >= begin * epochs][-1]


def learning_rate(step, steps, warm_up, peak):
    """Linear warm-up, then a half cosine down to zero."""
    if step < warm_up:
        return peak * (step + 1) / warm_up
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / (steps - warm_up)))


def make_optimizer(model, options):
    """Weight decay only where it belongs: convolutions and the head's matrix, not BN or biases."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    return torch.optim.SGD([{"params": matrices, "weight_decay": options.weight_decay},
                            {"params": vectors, "weight_decay": 0.0}],
                           lr=options.lr, momentum=0.9, nesterov=True)


@torch.no_grad()
def update_average(average, model, step):
    """Exponential moving average of weights and BN statistics; it forgets the first steps quickly."""
    keep = min(0.998, (step + 1) / (step + 10))
    for mean, now in zip(average.state_dict().values(), model.state_dict().values()):
        if mean.is_floating_point():
            mean.lerp_(now, 1 - keep)


def train_epoch(state, workers, pictures, labels, epoch, options):
    """One pass over the photographs; the mean loss and the last learning rate.

    All chance comes from generators seeded by the epoch, so a resumed run draws what an unbroken one would.
    """
    model, average, optimizer = state
    size, per_epoch = size_at(epoch, options.epochs), len(pictures) // options.batch
    shuffle, *randoms = (torch.Generator().manual_seed(options.seed * 1_000_000 + epoch * 100 + i)
                         for i in range(options.workers + 1))
    order, total = torch.randperm(len(pictures), generator=shuffle), 0.0
    for i in range(per_epoch):
        step = epoch * per_epoch + i
        rate = learning_rate(step, options.epochs * per_epoch, options.warm_up * per_epoch, options.lr)
        for group in optimizer.param_groups:
            group["lr"] = rate
        parts = order[i * options.batch:(i + 1) * options.batch].chunk(options.workers)
        inputs = [partial(training_input, pictures[part], size, random, options.device)
                  for part, random in zip(parts, randoms)]
        total += workers.gradients(inputs, [labels[part] for part in parts])
        optimizer.step()
        update_average(average, model, step)
    return total / per_epoch, rate


def predict(model, pictures, options):
    """The class index the model gives each picture (uint8 N x 3 x H x W), in f32."""
    @torch.no_grad()
    def answer(part):
        return model(normalise(to_input(part.to(options.device)))).argmax(1).cpu()

    model.eval()
    with ThreadPoolExecutor(options.workers) as pool:
        return torch.cat(list(pool.map(answer, pictures.split(64))))


def save_atomically(value, path):
    """A killed run must leave the old file or the new one, never a part of one."""
    torch.save(value, f"{path}.new")
    os.replace(f"{path}.new", path)


def save_checkpoint(path, state, epoch, recipe):
    model, average, optimizer = (part.state_dict() for part in state)
    save_atomically({"model": model, "average": average, "optimizer": optimizer,
                     "epoch": epoch, "recipe": recipe}, path)


def load_checkpoint(path, state, recipe):
    """Restores everything, and gives the epoch to go on with. Only the number of epochs may differ from before."""
    saved = torch.load(path, map_location="cpu")
    if saved["recipe"] != recipe:
        sys.exit(f"{path} was made with other settings: {saved['recipe']}")
    for part, name in zip(state, ("model", "average", "optimizer")):
        part.load_state_dict(saved[name])
    return saved["epoch"] + 1


def train(options):
    names = class_names(options.data)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "labels.txt").write_text("".join(f"{name}\n" for name in names))
    pictures, labels = load_split(options.data / "train", names, options.limit)
    tests = load_split(options.data / "val", names, options.limit)

    torch.manual_seed(options.seed)
    model = ResNet18(WIDTH, len(names)).to(options.device, memory_format=torch.channels_last)
    average = copy.deepcopy(model)
    state = (model, average, make_optimizer(model, options))
    recipe = {name: getattr(options, name) for name in ("batch", "lr", "weight_decay", "warm_up", "seed", "workers")}
    checkpoint = options.out / "checkpoint.pt"
    first = load_checkpoint(checkpoint, state, recipe) if options.resume else 0
    workers = Workers(model, options.workers)

    for epoch in range(first, min(options.epochs, options.stop_after)):
        began = time.monotonic()
        loss, rate = train_epoch(state, workers, pictures, labels, epoch, options)
        size = size_at(epoch, options.epochs)
        line = f"epoch {epoch + 1:3d}/{options.epochs}  size {size}  lr {rate:.5f}  loss {loss:.4f}"
        if (epoch + 1) % 5 == 0 or epoch + 1 == options.epochs:
            line += f"  val {100 * accuracy(average, *tests, options):.2f} %"
        save_checkpoint(checkpoint, state, epoch, recipe)
        write_log(options.out / "log.txt", f"{line}  {time.monotonic() - began:.0f} s", epoch == 0)
    weights = {name: tensor.contiguous().cpu() for name, tensor in average.state_dict().items()}
    save_atomically(weights, options.out / "default.pth")


def accuracy(model, pictures, answers, options):
    return (predict(model, pictures, options) == answers).float().mean().item()


def write_log(path, line, anew):
    print(line, flush=True)
    with open(path, "w" if anew else "a") as log:
        print(line, file=log)


# ---- Evaluation ----

def wilson(right, count):
    """The 95 % confidence interval of right / count."""
    z, share = 1.96, right / count
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return centre - half, centre + half


def draw_confusion(matrix, names, path):
    """The confusion matrix (rows: the truth; columns: the answer) as a small picture."""
    cell, left, top = 34, 112, 24
    side = cell * len(names)
    picture = Image.new("RGB", (left + side + 8, top + side + 8), "white")
    draw = ImageDraw.Draw(picture)
    for row, name in enumerate(names):
        y = top + row * cell
        draw.text((6, y + 11), f"{row} {name}", fill="black")
        draw.text((left + row * cell + 14, 7), str(row), fill="black")
        for column, count in enumerate(matrix[row]):
            share = count / max(1, matrix[row].sum())
            x, strength = left + column * cell, math.sqrt(share)  # the root makes rare mistakes visible
            warm = (255 - int(20 * strength), 255 - int(190 * strength), 255 - int(215 * strength))
            cool = (255 - int(225 * strength), 255 - int(135 * strength), 255 - int(75 * strength))
            draw.rectangle((x, y, x + cell - 2, y + cell - 2), fill=cool if row == column else warm)
            text = str(count)
            draw.text((x + (cell - 6 * len(text)) // 2, y + 11), text, fill="black" if count else "#bbbbbb")
    picture.quantize(64).save(path, optimize=True)


def resized(pictures, resize, crop):
    images = (Image.fromarray(picture.permute(1, 2, 0).numpy()) for picture in pictures)
    return as_tensor([np.asarray(resize_and_crop(image, resize, crop)) for image in images])


def evaluate(options):
    names = class_names(options.data)
    model = ResNet18(WIDTH, len(names))
    model.load_state_dict(torch.load(options.evaluate, map_location="cpu"))
    model = model.to(options.device, memory_format=torch.channels_last)
    pictures, answers = load_split(options.data / "val", names, options.limit)
    best = (-1, None)
    for resize, crop in [options.size] if options.size else EVAL_SIZES:
        given = predict(model, resized(pictures, resize, crop), options)
        right = (given == answers).sum().item()
        low, high = wilson(right, len(answers))
        print(f"resize {resize} crop {crop}: {right}/{len(answers)} = {100 * right / len(answers):.2f} % "
              f"(95 %: {100 * low:.2f} to {100 * high:.2f})", flush=True)
        best = max(best, (right, (resize, crop, given)), key=lambda entry: entry[0])
    resize, crop, given = best[1]
    print(f"best: resize {resize} crop {crop}")
    if options.confusion:
        matrix = torch.bincount(answers * len(names) + given, minlength=len(names) ** 2)
        draw_confusion(matrix.view(len(names), -1).numpy(), names, options.confusion)


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, help="folder for the checkpoint, the log and the weights")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--stop-after", type=int, default=sys.maxsize, metavar="EPOCH",
                        help="end early, for a later --resume")
    parser.add_argument("--evaluate", type=Path, metavar="WEIGHTS")
    parser.add_argument("--size", type=int, nargs=2, metavar=("RESIZE", "CROP"), help="evaluate at this size alone")
    parser.add_argument("--confusion", type=Path, metavar="PICTURE")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--weight-decay", type=float, default=1e-3)
    parser.add_argument("--warm-up", type=int, default=5, help="epochs")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2, help="threads that share each batch")
    parser.add_argument("--limit", type=int, help="photographs a class, for a quick trial")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    if not options.evaluate and not options.out:
        parser.error("--out or --evaluate is needed")
    return options


def main():
    options = parse_options()
    torch.set_num_threads(1)  # the workers are the threads
    evaluate(options) if options.evaluate else train(options)


if __name__ == "__main__":
    main()
