"""Config files of timm and Hugging Face: preprocessing, labels, and what shapes do not show."""
import math
import re
from dataclasses import dataclass, fields

from .failure import Misuse, Refused, shown
from .files import Source
from .strict_json import parse_json

MAX_CONFIG = 1 << 24  # bytes
MAX_SIDE = 16384
RESAMPLINGS = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers
# Of timm's architectures those that are in the family; what others change need not show in names and shapes.
TIMM = re.compile(r"(gluon_|tv_|ssl_|swsl_|ig_)?"
                  r"((wide_|se)?resnet\d{2,4}[cdt]?(_\d)?|(se)?resnext\d{2,3}[dt]?(_\d+x\d+d)?)", re.ASCII)


@dataclass
class Config:
    """None where the files say nothing."""
    size: tuple = None  # height and width of the input
    resize: int = None
    interpolation: str = None
    mean: list = None
    std: list = None
    labels: list = None
    labels_origin: str = ""
    stride_at: str = None
    head: str = None
    squashes: bool = None  # they give the network the whole picture, whatever its shape; here it is the middle of it


def read_configs(paths):
    """What all files say together; a later one counts before an earlier one."""
    config = Config()
    for path in paths:
        try:
            with Source(path, MAX_CONFIG) as source:
                found = parse_config(parse_json(source.read(0, source.size), "a config file", fractions=True))
        except Refused as error:
            raise Misuse(f"{shown(path)}: {error}") from None
        if found.labels is not None:
            found.labels_origin = shown(path)
        for field in fields(Config):
            if getattr(found, field.name) not in (None, ""):
                setattr(config, field.name, getattr(found, field.name))
    return config


def parse_config(json):
    if "pretrained_cfg" in json or {"input_size", "crop_pct"} <= set(json):
        return parse_timm(json)
    if "image_mean" in json or "do_resize" in json:
        return parse_processor(json)
    if "model_type" in json:
        return parse_hugging_face(json)
    raise Refused("is no config file of timm (pretrained_cfg) or Hugging Face (model_type, image_mean)")


# ---- Single values ----

def get(json, name, kinds, default=None):
    """A member of one of these types; the default where it is missing or null."""
    value = json.get(name)
    if value is None:
        return default
    if type(value) not in kinds:
        raise Refused(f"has {name} {shown(value, 40)}, expected {' or '.join(kind.__name__ for kind in kinds)}")
    return value


def get_numbers(json, name, positive=False):
    """A list of numbers that float32 can hold, or None."""
    values = get(json, name, (list,))
    if values is None:
        return None
    if not 1 <= len(values) <= 16 or not all(type(v) in (int, float) and abs(v) < 1e38 for v in values):
        raise Refused(f"has {name} {shown(values, 60)}, expected a number for each channel")
    if positive and not all(v > 1e-30 for v in values):
        raise Refused(f"has {name} {shown(values, 60)}, expected numbers above 0")
    return [float(value) for value in values]


def side(value, name):
    if type(value) is not int or not 1 <= value <= MAX_SIDE:
        raise Refused(f"has {name} {shown(value, 40)}, expected pixels from 1 to {MAX_SIDE}")
    return value


def scaled(size, crop_pct):
    """The short side of the resize in front of a crop that is this part of it."""
    if not 0.01 <= crop_pct <= 1:
        raise Refused(f"has crop_pct {shown(crop_pct, 40)}, expected 0.01 to 1")
    return min(math.floor(size / crop_pct), MAX_SIDE)


# ---- timm ----

def parse_timm(json):
    architecture = get(json, "architecture", (str,))
    if architecture and not TIMM.fullmatch(architecture.split(".")[0]):
        raise Refused(f"is of {shown(architecture, 60)}, which is not of the family that is supported")
    own = get(json, "pretrained_cfg", (dict,), json)
    config = Config(mean=get_numbers(own, "mean"), std=get_numbers(own, "std", positive=True))
    input_size = get(own, "input_size", (list,))
    if input_size is not None:
        if len(input_size) != 3:
            raise Refused(f"has input_size {shown(input_size, 40)}, expected channels, height and width")
        config.size = tuple(side(value, "input_size") for value in input_size[1:])
        config.resize = scaled(min(config.size), get(own, "crop_pct", (int, float), 0.875))
    if get(own, "crop_mode", (str,), "center") != "center":
        raise Refused(f"has crop_mode {shown(own['crop_mode'], 40)}, which is not supported: center is")
    config.interpolation = get(own, "interpolation", (str,))
    if config.interpolation not in (None, *RESAMPLINGS.values()):
        raise Refused(f"has interpolation {shown(config.interpolation, 40)}, which is not supported")
    config.labels = timm_labels(json, own)
    return config


def timm_labels(json, own):
    """label_names, in the words of label_descriptions where there are some."""
    names = get(json, "label_names", (list,), get(own, "label_names", (list,)))
    if names is None:
        return None
    described = get(json, "label_descriptions", (dict,), get(own, "label_descriptions", (dict,), {}))
    labels = [described.get(name, name) if type(name) is str else None for name in names]
    if not all(type(label) is str for label in labels):
        raise Refused("has label_names that are not strings")
    return labels


# ---- Hugging Face ----

def parse_hugging_face(json):
    """config.json: the network."""
    if json["model_type"] != "resnet":
        raise Refused(f"is of the model type {shown(json['model_type'], 40)}, expected resnet")
    if get(json, "hidden_act", (str,), "relu") != "relu" or get(json, "downsample_in_first_stage", (bool,), False):
        raise Refused("has another activation than relu, or a stride in the first stage, which are not supported")
    multi_label = get(json, "problem_type", (str,)) == "multi_label_classification"
    names = get(json, "id2label", (dict,))
    if names is not None and (set(names) != set(map(str, range(len(names)))) or
                              not all(type(name) is str for name in names.values())):
        raise Refused("has id2label that does not give each class from 0 a name")
    return Config(labels=names and [names[str(index)] for index in range(len(names))],
                  stride_at="1x1" if get(json, "downsample_in_bottleneck", (bool,), False) else "3x3",
                  head="sigmoid" if multi_label else None)


def parse_processor(json):
    """preprocessor_config.json: the pictures."""
    size = get(json, "size", (int, dict))
    crop = get(json, "crop_size", (int, dict)) if get(json, "do_center_crop", (bool,), True) else None
    crop_pct = get(json, "crop_pct", (int, float))
    config = Config(interpolation=resampling(json), **normalisation(json))
    if size is None:
        return config
    short, shape = sides(size, "size")
    if crop is not None:
        config.size, config.resize = sides(crop, "crop_size")[1], short
    elif crop_pct is not None and short < 384:  # from there on their resize takes the whole picture
        config.size, config.resize = shape, scaled(short, crop_pct)
    else:
        config.size, config.resize = shape, short
        config.squashes = type(size) is dict and "shortest_edge" not in size or crop_pct is not None
    if not get(json, "do_resize", (bool,), True):
        config.resize = 0
    return config


def sides(value, name):
    """The short side, and height and width, of a size."""
    if type(value) is int:
        return side(value, name), (value, value)
    if "shortest_edge" in value:
        short = side(value["shortest_edge"], name)
        return short, (short, short)
    shape = tuple(side(value.get(key), f"{name}'s {key}") for key in ("height", "width"))
    return min(shape), shape


def resampling(json):
    number = get(json, "resample", (int,))
    if number is not None and number not in RESAMPLINGS:
        raise Refused(f"has resample {number}, which is not supported: 2 (bilinear) and 3 (bicubic) are")
    return RESAMPLINGS.get(number)


def normalisation(json):
    """mean and std after u / 255, whatever the pixels are multiplied by there."""
    mean, std = get_numbers(json, "image_mean"), get_numbers(json, "image_std", positive=True)
    if not get(json, "do_normalize", (bool,), True):
        mean, std = [0.0] * len(mean or [0] * 3), [1.0] * len(std or [0] * 3)
    factor = get(json, "rescale_factor", (int, float), 1 / 255) if get(json, "do_rescale", (bool,), True) else 1
    if not 1e-6 < factor < 1e6:
        raise Refused(f"has rescale_factor {shown(factor, 40)}, expected about 1/255")
    if math.isclose(factor * 255, 1, rel_tol=1e-9):
        return {"mean": mean, "std": std}
    return {"mean": mean and [value / (factor * 255) for value in mean],
            "std": std and [value / (factor * 255) for value in std]}
