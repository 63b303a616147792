"""Python on the C library: numpy in, numpy out, by ctypes alone.

    import resnet
    model = resnet.Model("resnet50.resnet")
    session = model.session(batch=8)
    session.classify("photo.jpg")              # [("tabby", 0.61), ...]
    session.logits(["a.jpg", "b.png"])         # float32 [2, classes]
    session.embedding(pixels)                  # float32 [1, features], of uint8 [height, width, 3]
    session.maps(pixels, stages=(1, 2, 3))     # {stage: float32 [1, channels, height, width]}

An image is a path, the bytes of a JPEG, PNG or BMP, pixels as uint8 [height, width, 3] in RGB, or normalised numbers as
float32 [channels, height, width] of the session's size; a list of images gives a row each. Python's lock is released while
the library computes. A model may be shared by threads, and by processes that are forked when it is loaded; a session waits
for its turn between threads, and belongs to the process that made it: let each worker make its own.

The library is the file that the environment variable RESNET_LIBRARY names, or that of the build or the installed tree that
this file lies in, or the system's.
"""
import ctypes
import os
import pathlib
import threading
import weakref

import numpy as np

__all__ = ["Error", "Model", "Session", "version"]

VERSION = "0.1"  # of the structures below; the library's own must begin with it
MAX_STAGES, MAX_CHANNELS = 4, 16
HEAD_SIGMOID = 1

_int, _u32, _u64, _size = ctypes.c_int, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_size_t
_pointer, _text, _floats = ctypes.c_void_p, ctypes.c_char_p, ctypes.POINTER(ctypes.c_float)


# ---- The header's structures ----

def _structure(name, **fields):
    return type(name, (ctypes.Structure,), {"_fields_": list(fields.items())})


_Error = _structure("_Error", status=_int, message=ctypes.c_char * 256)
_Config = _structure("_Config", block=_int, blocks=_u32 * MAX_STAGES, base_width=_u32, groups=_u32, width_per_group=_u32,
                     stride_at=_int, stem=_int, shortcut=_int, attention=_int, attention_width=_u32, output_stride=_u32,
                     in_channels=_u32, height=_u32, width=_u32, classes=_u32, head=_int, precision=_int,
                     bn_epsilon=ctypes.c_float)
_Preprocess = _structure("_Preprocess", resize=_u32, interpolation=_int, mean=ctypes.c_float * MAX_CHANNELS,
                         std=ctypes.c_float * MAX_CHANNELS)
_LoadOptions = _structure("_LoadOptions", isa=_int, precision=_int, threads=_u32, no_winograd=_int, allocator=_pointer)
_ModelInfo = _structure("_ModelInfo", architecture=_text, config=_Config, preprocess=_Preprocess, isa=_int, precision=_int,
                        parameters=_u64, macs=_u64, memory=_size, features=_u32, layers=_u32)
_SessionOptions = _structure("_SessionOptions", batch=_u32, height=_u32, width=_u32, threads=_u32, parallel_for=_pointer,
                             parallel_context=_pointer, layer_seconds=_pointer)
_Map = _structure("_Map", channels=_u32, height=_u32, width=_u32, stride=_u32)
_Request = _structure("_Request", logits=_floats, embedding=_floats, maps=_floats * MAX_STAGES, layout=_int, cam=_floats,
                      cam_classes=_pointer)


# ---- The library ----

def _open_library():
    here = pathlib.Path(__file__).resolve().parent
    places = [here.parent / "build/libresnet.so", here.parent.parent / "lib" / f"libresnet.so.{VERSION}"]
    found = os.environ.get("RESNET_LIBRARY") or next((str(place) for place in places if place.exists()),
                                                     f"libresnet.so.{VERSION}")
    library = ctypes.CDLL(found)
    library.resnet_version.restype = _text
    if not library.resnet_version().decode().startswith(VERSION + "."):
        raise ImportError(f"{found} is version {library.resnet_version().decode()}, not {VERSION}")
    return library


def _declare(name, result, *arguments):
    function = getattr(_library, "resnet_" + name)
    function.restype, function.argtypes = result, arguments
    return function


_library = _open_library()
_error = ctypes.POINTER(_Error)
_status_name = _declare("status_name", _text, _int)
_isa_name = _declare("isa_name", _text, _int)
_precision_name = _declare("precision_name", _text, _int)
_load_file = _declare("model_load_file", _int, _text, ctypes.POINTER(_LoadOptions), ctypes.POINTER(_pointer), _error)
_model_free = _declare("model_free", None, _pointer)
_describe = _declare("model_describe", _ModelInfo, _pointer)
_label = _declare("model_label", _text, _pointer, _u32)
_create = _declare("session_create", _int, _pointer, ctypes.POINTER(_SessionOptions), ctypes.POINTER(_pointer), _error)
_session_free = _declare("session_free", None, _pointer)
_set_floats = _declare("session_set_floats", _int, _pointer, _u32, _pointer, _int, _error)
_set_rgb = _declare("session_set_rgb", _int, _pointer, _u32, _pointer, _u32, _u32, _size, _pointer, _error)
_set_image_file = _declare("session_set_image_file", _int, _pointer, _u32, _text, _pointer, _error)
_set_image_memory = _declare("session_set_image_memory", _int, _pointer, _u32, _text, _size, _pointer, _error)
_map = _declare("session_map", _int, _pointer, _u32, ctypes.POINTER(_Map), _error)
_run = _declare("run", _int, _pointer, _u32, ctypes.POINTER(_Request), _error)
_softmax = _declare("softmax", None, _floats, _u32)
_top_k = _declare("top_k", _u32, _floats, _u32, _u32, ctypes.POINTER(_u32))


class Error(Exception):
    """The library said no; `status` is its name for the reason, such as "RESNET_ERROR_IO"."""

    def __init__(self, error):
        super().__init__(error.message.decode(errors="replace"))
        self.status = _status_name(error.status).decode()


def _call(function, *arguments):
    error = _Error()
    if function(*arguments, ctypes.byref(error)):
        raise Error(error)


def _number(name_of, name):
    """The enumerator that the library calls `name`."""
    for i in range(64):
        if name_of(i).decode() in (name, "unknown"):
            break
    if name_of(i).decode() != name:
        raise ValueError(f"there is no {name}")
    return i


def _data(array):
    return array.ctypes.data_as(_floats)


def version():
    """The library's, such as "0.1.0"."""
    return _library.resnet_version().decode()


# ---- What users hold ----

def _release(free, pointer, process, _needed):
    """Free what this process made; a forked child's copy of it has no threads that could be waited for."""
    if os.getpid() == process:
        free(pointer)


class _Owned:
    """A pointer of the library's, freed when nothing refers to this object any more, and before what it needs is. At the
    end of the program, when objects go in any order, all is left to the system."""

    def __init__(self):
        self._pointer, self._process = _pointer(), os.getpid()

    def _own(self, free, needed=None):
        weakref.finalize(self, _release, free, self._pointer, self._process, needed).atexit = False


class Model(_Owned):
    """A model file, loaded. isa and precision as the program's options of these names; threads to load with."""

    def __init__(self, path, isa="auto", precision="auto", threads=0):
        super().__init__()
        options = _LoadOptions(isa=_number(_isa_name, isa), precision=_number(_precision_name, precision), threads=threads)
        _call(_load_file, os.fsencode(path), options, self._pointer)
        self._own(_model_free)
        info = _describe(self._pointer)
        self.architecture = info.architecture.decode()
        self.classes, self.features, self.head = info.config.classes, info.features, info.config.head
        self.channels, self.height, self.width = info.config.in_channels, info.config.height, info.config.width
        self.isa, self.precision = _isa_name(info.isa).decode(), _precision_name(info.precision).decode()
        labels = [_label(self._pointer, i) for i in range(self.classes)]
        self.labels = [f"class {i}" if label is None else label.decode() for i, label in enumerate(labels)]

    def session(self, batch=1, height=0, width=0, threads=0):
        """Memory and threads to run this model with, `batch` images at a time."""
        return Session(self, batch, height, width, threads)


class Session(_Owned):
    """Made by Model.session. Images beyond the batch are computed in further runs."""

    def __init__(self, model, batch, height, width, threads):
        super().__init__()
        self.model, self.batch = model, batch
        self.height, self.width = height or model.height, width or model.width
        self._lock = threading.Lock()
        options = _SessionOptions(batch=batch, height=height, width=width, threads=threads)
        _call(_create, model._pointer, options, self._pointer)
        self._own(_session_free, model)

    def logits(self, images):
        """float32 [images, classes], before softmax."""
        return self._compute(images, logits=(self.model.classes,))["logits"]

    def embedding(self, images):
        """float32 [images, features]: the mean of the last stage's map."""
        return self._compute(images, embedding=(self.model.features,))["embedding"]

    def maps(self, images, stages=(0, 1, 2, 3)):
        """{stage: float32 [images, channels, height, width]}: what these stages give, C2 to C5 of detectors."""
        return self._compute(images, **{str(stage): self._map_shape(stage) for stage in stages}, key=int)

    def classify(self, image, top=5):
        """The best classes of one image, [(label, probability), ...]."""
        scores = self.logits([image])[0]
        if self.model.head == HEAD_SIGMOID:
            scores = 1 / (1 + np.exp(-scores))
        else:
            _softmax(_data(scores), len(scores))
        best = (_u32 * min(top, len(scores)))()
        count = _top_k(_data(scores), len(scores), len(best), best)
        return [(self.model.labels[i], float(scores[i])) for i in best[:count]]

    def _map_shape(self, stage):
        shape = _Map()
        _call(_map, self._pointer, stage, shape)
        return shape.channels, shape.height, shape.width

    def _compute(self, images, key=str, **shapes):
        """{key(name): float32 [images, *shape]} of each name=shape: a field of the request, or the number of a stage."""
        if self._process != os.getpid():
            raise RuntimeError("this session was made in another process: make one in each")
        images = images if isinstance(images, (list, tuple)) else [images]
        results = {name: np.empty((len(images), *shape), np.float32) for name, shape in shapes.items()}
        with self._lock:
            for first in range(0, len(images), self.batch):
                part = images[first:first + self.batch]
                for slot, image in enumerate(part):
                    self._set(slot, image)
                _call(_run, self._pointer, len(part), self._request(results, first))
        return {key(name): result for name, result in results.items()}

    @staticmethod
    def _request(results, first):
        request = _Request()
        for name, result in results.items():
            if name.isdigit():
                request.maps[int(name)] = _data(result[first:])
            else:
                setattr(request, name, _data(result[first:]))
        return request

    def _set(self, slot, image):
        if isinstance(image, (str, os.PathLike)):
            _call(_set_image_file, self._pointer, slot, os.fsencode(image), None)
        elif isinstance(image, (bytes, bytearray)):
            _call(_set_image_memory, self._pointer, slot, bytes(image), len(image), None)
        elif image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3:
            pixels = np.ascontiguousarray(image)
            _call(_set_rgb, self._pointer, slot, pixels.ctypes.data, pixels.shape[1], pixels.shape[0], 0, None)
        elif image.dtype == np.float32 and image.shape == (self.model.channels, self.height, self.width):
            values = np.ascontiguousarray(image)
            _call(_set_floats, self._pointer, slot, values.ctypes.data, 0)
        else:
            raise ValueError(f"an image is uint8 [height, width, 3] or float32 [{self.model.channels}, {self.height}, "
                             f"{self.width}], not {image.dtype} {list(image.shape)}")
