"""Labels: from a text file, a config file, or ImageNet's."""
import os
import re

from .failure import Misuse, Refused, shown
from .files import Source

MAX_LABELS = 1 << 24  # bytes
IMAGENET_CLASSES = 1000
IMAGENET_LABELS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "models", "imagenet_classes.txt")


def read_labels(path):
    """The lines of a text file of one label a line; the last line feed may be missing."""
    try:
        with Source(path, MAX_LABELS) as source:
            text = source.read(0, source.size).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Misuse(f"{shown(path)}: is not UTF-8") from None
    except Refused as error:
        raise Misuse(f"{shown(path)}: {error}") from None
    return text.replace("\r\n", "\n").removesuffix("\n").split("\n")


def label_block(labels, classes, origin):
    """The bytes of the model file's label block; `origin` names where they are from."""
    if len(labels) != classes:
        raise Misuse(f"{origin}: has {len(labels)} labels, the network has {classes} classes")
    for number, label in enumerate(labels, 1):
        if not label or re.search("[\0-\x1f\x7f-\x9f\ud800-\udfff]", label):
            raise Misuse(f"{origin}: line {number} is empty or has a control character")
    block = "".join(label + "\n" for label in labels).encode()
    if len(block) > MAX_LABELS:
        raise Misuse(f"{origin}: has {len(block)} bytes of labels, more than the {MAX_LABELS} of a model file")
    return block


def choose_labels(path, config, classes):
    """The label block, and where it came from: the option's file, the config file, or ImageNet's by their number."""
    if path is None and config.labels is not None and classes:  # such files list labels for a bare backbone too
        return label_block(config.labels, classes, config.labels_origin), f"labels of {config.labels_origin}"
    if path is None and (classes != IMAGENET_CLASSES or not os.path.exists(IMAGENET_LABELS)):
        return b"", "no labels"
    path = path or IMAGENET_LABELS
    return label_block(read_labels(path), classes, shown(path)), f"labels of {shown(os.path.basename(path))}"
