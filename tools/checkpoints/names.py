"""Names: from those of torchvision, timm, Hugging Face and Keras to those of the model file.

The model file's are torchvision's, with timm's for the deep stem (conv1.0, conv1.3, conv1.6) and squeeze-and-excitation
(se.fc1, se.fc2), and downsample.0 and .1 for every projection.
"""
import re
from dataclasses import dataclass, field

from .failure import Refused, listed, shown
from .keras import keras_names

COUNTERS = ("num_batches_tracked", "n_averaged")  # of training; no part of a network
HEADS = ("fc", "linear", "head.fc", "head", "classifier.1", "classifier", "last_linear")
HUGGING_FACE_BLOCK = r"encoder\.stages\.([0-9]{1,4})\.layers\.([0-9]{1,5})\."
HUGGING_FACE = (
    (r"embedder\.embedder\.convolution\.(.*)", r"conv1.\1"),
    (r"embedder\.embedder\.normalization\.(.*)", r"bn1.\1"),
    (HUGGING_FACE_BLOCK + r"shortcut\.convolution\.(.*)", r"layer\1.\2.downsample.0.\3"),
    (HUGGING_FACE_BLOCK + r"shortcut\.normalization\.(.*)", r"layer\1.\2.downsample.1.\3"),
    (HUGGING_FACE_BLOCK + r"layer\.([0-9])\.convolution\.(.*)", r"layer\1.\2.conv\3.\4"),
    (HUGGING_FACE_BLOCK + r"layer\.([0-9])\.normalization\.(.*)", r"layer\1.\2.bn\3.\4"),
)


@dataclass
class Named:
    """A network's tensors under the names of the model file."""
    tensors: dict
    style: str  # whose names they were
    prefix: str = ""
    skipped: list = field(default_factory=list)  # names of tensors that are not of the network
    pooled_shortcut: bool = False  # timm's indices of downsample say so, and nothing else does


def canonical(tensors):
    """The Named tensors of a checkpoint."""
    tensors = {name: tensor for name, tensor in tensors.items() if name.rsplit(".", 1)[-1] not in COUNTERS}
    if any(re.match(r"conv1_conv/|conv[2-5]_block[0-9]", name) for name in tensors):
        return Named(keras_names(tensors), "Keras")
    refuse_others(tensors)
    face = find_prefix(tensors, is_hugging_face)
    prefix = face if face is not None else find_prefix(tensors, is_block)
    if prefix is None:
        raise Refused(f"is no ResNet with the names of torchvision, timm, Hugging Face or Keras; it begins with "
                      f"{listed(sorted(tensors)) or 'nothing'}")
    inside, outside = split_by_prefix(tensors, prefix)
    head = take_head(inside, outside, prefix)
    named = hugging_face(inside, prefix) if face is not None else pytorch(inside, prefix)
    named.tensors.update(head)
    named.skipped = sorted(outside)
    return named


# ---- The prefix ----

def is_block(parts):
    return re.fullmatch("layer[0-9]{1,3}", parts[0], re.ASCII) and re.fullmatch("[0-9]{1,9}", parts[1], re.ASCII)


def is_hugging_face(parts):
    return parts[:2] in (["encoder", "stages"], ["embedder", "embedder"])


def find_prefix(tensors, begins):
    """What stands before the network's own names ("module.", "backbone.body.", ...), or None."""
    found = set()
    for name in tensors:
        parts = name.split(".", 12)
        start = next((i for i in range(len(parts) - 2) if begins(parts[i:])), None)
        if start is not None:
            found.add("".join(part + "." for part in parts[:start]))
    if len(found) > 1:
        raise Refused(f"holds {len(found)} networks, under {listed(sorted(found))}: keep one of them")
    return found.pop() if found else None


def split_by_prefix(tensors, prefix):
    inside = {name[len(prefix):]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    outside = {name: tensor for name, tensor in tensors.items() if not name.startswith(prefix)}
    return inside, outside


def take_head(inside, outside, prefix):
    """The classifier under its name in the model file: it is the network's, or of a module around it."""
    for name in HEADS:
        if found := take_layer(inside, name):
            return found
    while prefix:
        prefix = prefix[:prefix.rstrip(".").rfind(".") + 1]
        for name in HEADS:
            if is_matrix(outside.get(f"{prefix}{name}.weight")) and (found := take_layer(outside, prefix + name)):
                return found
    return {}


def is_matrix(tensor):
    return tensor is not None and len(tensor.shape) == 2


def take_layer(tensors, name):
    parts = [part for part in ("weight", "bias") if f"{name}.{part}" in tensors]
    taken = {f"fc.{part}": tensors.pop(f"{name}.{part}") for part in parts}
    if "fc.weight" in taken and len(taken["fc.weight"].shape) == 4:  # a 1x1 convolution
        taken["fc.weight"] = taken["fc.weight"].reduced(2)
    return taken


# ---- Styles ----

def hugging_face(tensors, prefix):
    renamed = {}
    for name, tensor in tensors.items():
        for pattern, template in HUGGING_FACE:
            if re.fullmatch(pattern, name, re.ASCII | re.DOTALL):
                name = from_one(re.sub(pattern, template, name, flags=re.ASCII | re.DOTALL))
                break
        renamed[name] = tensor
    return Named(renamed, "Hugging Face", prefix)


def from_one(name):
    """Stages, convolutions and norms of a block counted from one: Hugging Face counts them from zero."""
    name = re.sub(r"^layer([0-9]+)", lambda found: f"layer{int(found[1]) + 1}", name)
    return re.sub(r"\.(conv|bn)([0-9])\.", lambda found: f".{found[1]}{int(found[2]) + 1}.", name)


def pytorch(tensors, prefix):
    """torchvision's names, and timm's."""
    pooled = any(re.fullmatch(r"layer[0-9]+\.[0-9]+\.downsample\.2\..*", name, re.ASCII) for name in tensors)
    timm = pooled or any(re.match(r"conv1\.[0-9]|layer[0-9]+\.[0-9]+\.se\.", name, re.ASCII) for name in tensors)
    renamed = {}
    for name, tensor in tensors.items():
        name = name.replace(".shortcut.", ".downsample.", 1)
        if pooled:  # 0 is the pool: after this the convolution is 0, and its norm 1
            name = re.sub(r"\.downsample\.([12])\.", lambda found: f".downsample.{int(found[1]) - 1}.", name)
        if re.fullmatch(r"layer[0-9]+\.[0-9]+\.se\.fc[12]\.weight", name, re.ASCII):
            tensor = tensor.reduced(2)
        if name in renamed:
            raise Refused(f"has two tensors that are {shown(name)}")
        renamed[name] = tensor
    return Named(renamed, "timm" if timm else "torchvision", prefix, pooled_shortcut=pooled)


# ---- Relatives that are no members of the family ----

OTHERS = (
    (r".*\.filt|.*\.aa\.[^.]+", "anti-aliased pooling"),
    (r"(.*\.)?layer[0-9]+\.[0-9]+\.convs\.[0-9]+\..*", "blocks in hierarchical scales (Res2Net)"),
    (r"(.*\.)?layer[0-9]+\.[0-9]+\.conv2\.(fc[12]|bn[01]|conv)\..*", "split attention (ResNeSt)"),
    (r"(.*\.)?layer[0-9]+\.[0-9]+\.conv[12]\.(paths|attn)\..*", "selective kernels (SKNet)"),
    (r"(.*\.)?layer[0-9]+\.[0-9]+\.se\.conv\..*", "efficient channel attention (ECA)"),
    (r"(.*\.)?layer[0-9]+\.[0-9]+\.se_module\..*|layer0\..*", "the names of SENet's first code, whose max pool is "
     "another"),
    (r"(.*\.)?layer[0-9]+\.[0-9]+\.(attn|attention|cbam|ca|sa|gc|att)[.0-9].*", "an attention other than "
     "squeeze-and-excitation"),
    (r"(.*\.)?maxpool\.[0-9]+\..*", "a convolution in place of the stem's pool (ResNet-RS)"),
    (r"(.*\.)?stages?\.[0-9]+\.blocks\.[0-9]+\.norm[0-9]\..*|root\.conv\..*|.*\.unit[0-9]+\.gn[0-9]\..*",
     "pre-activation blocks (ResNetV2)"),
    (r"(.*\.)?regnet\..*", "RegNet's names"),
    (r"res[2-5][a-z][0-9]*_branch.*", "Keras's first names (res2a_branch2a)"),
)


def refuse_others(tensors):
    """Name the networks that look like one of the family and are not, where their names show it."""
    for pattern, what in OTHERS:
        found = next((name for name in tensors if re.fullmatch(pattern, name[:300], re.ASCII | re.DOTALL)), None)
        if found:
            raise Refused(f"has {what} ({shown(found, 120)}), which is not supported")
