"""An interpreter of the few pickle opcodes of torch.save, which makes nothing but inert objects."""
import struct
from dataclasses import dataclass

from .failure import Refused, shown
from .files import Span
from .tensors import Tensor, view

MAX_PICKLE = 4 << 20  # bytes; a ResNet of 1202 layers needs 1 MiB
MAX_STEPS = 1 << 20  # opcodes, each of which makes at most one object; that ResNet needs 250,000
MAX_MEMO = 1 << 18  # objects that a pickle may remember; that ResNet needs 61,000
MAX_LONG = 16  # bytes of a whole number; the magic number of legacy files has 10

OPCODES = dict(zip(
    b"(.012FIJKLMNPQRSTUVX\x80\x81\x82\x83\x84\x85\x86\x87\x88\x89\x8a\x8bBC\x8c\x8d\x8e\x8f\x90\x91\x92\x93\x94\x95"
    b"\x96\x97\x98]abcdeghijlopqrstu}G)",
    "MARK STOP POP POP_MARK DUP FLOAT INT BININT BININT1 LONG BININT2 NONE PERSID BINPERSID REDUCE STRING BINSTRING "
    "SHORT_BINSTRING UNICODE BINUNICODE PROTO NEWOBJ EXT1 EXT2 EXT4 TUPLE1 TUPLE2 TUPLE3 NEWTRUE NEWFALSE LONG1 LONG4 "
    "BINBYTES SHORT_BINBYTES SHORT_BINUNICODE BINUNICODE8 BINBYTES8 EMPTY_SET ADDITEMS FROZENSET NEWOBJ_EX "
    "STACK_GLOBAL MEMOIZE FRAME BYTEARRAY8 NEXT_BUFFER READONLY_BUFFER EMPTY_LIST APPEND BUILD GLOBAL DICT APPENDS "
    "GET BINGET INST LONG_BINGET LIST OBJ PUT BINPUT LONG_BINPUT SETITEM TUPLE SETITEMS EMPTY_DICT BINFLOAT "
    "EMPTY_TUPLE".split()))


@dataclass(frozen=True)
class Tag:
    """Stands for a global of Python, and can do nothing."""
    name: str
    dtype: str = ""  # of a storage


@dataclass(frozen=True)
class Storage:
    """What a persistent id becomes."""
    dtype: str
    span: Span


@dataclass(frozen=True)
class Dropped:
    """An object whose attributes are of no use here: the command line that a training script keeps."""


ORDERED_DICT = Tag("OrderedDict")
REBUILD_TENSOR = Tag("_rebuild_tensor_v2")
REBUILD_TENSOR_BEFORE_04 = Tag("_rebuild_tensor")
REBUILD_PARAMETER = Tag("_rebuild_parameter")
PARAMETER_BEFORE_04 = Tag("Parameter")
NAMESPACE = Tag("Namespace")
PARAMETERS = {REBUILD_PARAMETER: 3, PARAMETER_BEFORE_04: 1}  # with so many arguments, of which the first is the tensor
GLOBALS = {
    b"collections\nOrderedDict": ORDERED_DICT,
    b"torch._utils\n_rebuild_tensor_v2": REBUILD_TENSOR,
    b"torch._utils\n_rebuild_tensor": REBUILD_TENSOR_BEFORE_04,
    b"torch._utils\n_rebuild_parameter": REBUILD_PARAMETER,
    b"torch.nn.parameter\nParameter": PARAMETER_BEFORE_04,
    b"argparse\nNamespace": NAMESPACE,
    b"torch\nFloatStorage": Tag("FloatStorage", "float32"),
    b"torch\nHalfStorage": Tag("HalfStorage", "float16"),
    b"torch\nBFloat16Storage": Tag("BFloat16Storage", "bfloat16"),
    b"torch\nDoubleStorage": Tag("DoubleStorage", "float64"),
    b"torch\nLongStorage": Tag("LongStorage", "int64"),
    b"torch\nIntStorage": Tag("IntStorage", "int32"),
    b"torch\nByteStorage": Tag("ByteStorage", "uint8"),
    b"torch\nBoolStorage": Tag("BoolStorage", "uint8"),
}


class Pickle:
    """An interpreter of the few opcodes that torch.save writes for state dicts, optimizers and a few numbers.

    An opcode is allowed where there is a method op_<its name> for it, and each makes nothing but the inert objects
    above, numbers, strings, None, tuples, lists and dicts whose keys are strings or whole numbers. `load_storage`
    turns a persistent id into a Storage. `at` is where the next opcode is; `name` is for messages.
    """

    def __init__(self, data, load_storage, name):
        self.data, self.at, self.load_storage, self.name = data, 0, load_storage, name
        self.stack, self.below, self.memo = [], [], {}  # `below` holds the stacks under each mark
        self.finished = False

    def run(self):
        """The object that the pickle makes, up to its STOP."""
        start, steps = 0, 0
        try:
            while not self.finished:
                start, steps = self.at, steps + 1
                if steps > MAX_STEPS:
                    raise Refused(f"the pickle has more than {MAX_STEPS} opcodes")
                self.step()
        except Refused as error:
            raise Refused(f"{self.name}, byte {start}: {error}") from None
        if len(self.stack) != 1 or self.below:
            raise Refused(f"{self.name} does not end with its one object")
        return self.stack[0]

    def step(self):
        code = self.take(1)[0]
        operation = OPERATIONS.get(code)
        if operation is None and code in OPCODES:
            raise Refused(f"the pickle opcode {OPCODES[code]} is not allowed: save only the model's state_dict()")
        if operation is None:
            raise Refused(f"0x{code:02x} is no pickle opcode")
        operation(self)

    def take(self, count):
        if count > len(self.data) - self.at:
            raise Refused("the pickle is truncated")
        self.at += count
        return self.data[self.at - count:self.at]

    def number(self, layout):
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def pop(self):
        self.top()
        return self.stack.pop()

    def top(self):
        if not self.stack:
            raise Refused("the pickle takes from an empty stack")
        return self.stack[-1]

    def pop_mark(self):
        """Everything since the last mark; self.stack is another list afterwards."""
        if not self.below:
            raise Refused("the pickle looks for a mark that is not there")
        items, self.stack = self.stack, self.below.pop()
        return items

    def pop_tuple(self, count):
        self.stack.append(tuple([self.pop() for _ in range(count)][::-1]))

    def remember(self, index):
        if len(self.memo) >= MAX_MEMO:
            raise Refused(f"the pickle remembers more than {MAX_MEMO} objects")
        self.memo[index] = self.top()

    def recall(self, index):
        if index not in self.memo:
            raise Refused(f"the pickle recalls object {index}, which it never stored")
        self.stack.append(self.memo[index])

    def set_items(self, items):
        target = self.top()
        if type(target) is not dict or len(items) % 2:
            raise Refused("the pickle sets items of something that is no dict")
        for key, value in zip(items[::2], items[1::2]):
            if type(key) not in (str, int):
                raise Refused("a dict has a key that is no string or number: save only the model's state_dict()")
            if key in target:
                raise Refused(f"{shown(key)} is there twice")
            target[key] = value

    def op_proto(self):
        version = self.take(1)[0]
        if version != 2 or self.at != 2:
            raise Refused(f"pickle protocol {version}: torch.save writes 2, once, at the start")

    def op_stop(self):
        self.finished = True

    def op_mark(self):
        self.below.append(self.stack)
        self.stack = []

    def op_binput(self):
        self.remember(self.number("<B"))

    def op_long_binput(self):
        self.remember(self.number("<I"))

    def op_binget(self):
        self.recall(self.number("<B"))

    def op_long_binget(self):
        self.recall(self.number("<I"))

    def op_empty_dict(self):
        self.stack.append({})

    def op_empty_tuple(self):
        self.stack.append(())

    def op_tuple(self):
        items = tuple(self.pop_mark())
        self.stack.append(items)

    def op_tuple1(self):
        self.pop_tuple(1)

    def op_tuple2(self):
        self.pop_tuple(2)

    def op_tuple3(self):  # the arguments of _rebuild_parameter
        self.pop_tuple(3)

    def op_empty_list(self):
        self.stack.append([])

    def op_append(self):
        self.extend([self.pop()])

    def op_appends(self):
        items = self.pop_mark()
        self.extend(items)

    def extend(self, items):
        if type(self.top()) is not list:
            raise Refused("the pickle appends to something that is no list")
        self.top().extend(items)

    def op_binunicode(self):
        self.push_text(self.number("<I"))

    def op_binstring(self):  # of Python 2, as the next one
        self.push_text(self.number("<I"))

    def op_short_binstring(self):
        self.push_text(self.number("<B"))

    def push_text(self, size):
        try:
            self.stack.append(self.take(size).decode())
        except UnicodeDecodeError:
            raise Refused("a string is not UTF-8") from None

    def op_none(self):
        self.stack.append(None)

    def op_binint(self):
        self.stack.append(self.number("<i"))

    def op_binint1(self):
        self.stack.append(self.number("<B"))

    def op_binint2(self):
        self.stack.append(self.number("<H"))

    def op_binfloat(self):
        self.stack.append(self.number(">d"))

    def op_long1(self):
        size = self.number("<B")
        if size > MAX_LONG:
            raise Refused(f"a number has {size} bytes, more than the {MAX_LONG} that are read")
        self.stack.append(int.from_bytes(self.take(size), "little", signed=True))

    def op_newfalse(self):
        self.stack.append(False)

    def op_newtrue(self):  # requires_grad of _rebuild_parameter
        self.stack.append(True)

    def op_setitem(self):
        value, key = self.pop(), self.pop()
        self.set_items([key, value])

    def op_setitems(self):
        items = self.pop_mark()
        self.set_items(items)

    def op_global(self):
        lines = self.data[self.at:self.at + 256].split(b"\n", 2)
        if len(lines) < 3:
            raise Refused("a global has no end")
        name = b"\n".join(lines[:2])
        if name not in GLOBALS:
            called = shown(name.decode(errors="replace").replace("\n", "."))
            raise Refused(f"it wants {called}, which is not allowed: only tensors in dicts are read")
        self.at += len(name) + 1
        self.stack.append(GLOBALS[name])

    def op_binpersid(self):
        self.stack.append(self.load_storage(self.pop()))

    def op_reduce(self):
        arguments, function = self.pop(), self.pop()
        if type(function) is not Tag or type(arguments) is not tuple:
            raise Refused("the pickle calls something that is no function")
        if function is ORDERED_DICT and not arguments:
            self.stack.append({})
        elif function in (REBUILD_TENSOR, REBUILD_TENSOR_BEFORE_04):
            self.stack.append(rebuild_tensor(function, arguments))
        elif PARAMETERS.get(function) == len(arguments) and type(arguments[0]) is Tensor:
            self.stack.append(arguments[0])
        else:
            raise Refused(f"the pickle calls {function.name} in a way that torch.save does not")

    def op_newobj(self):
        arguments, kind = self.pop(), self.pop()
        if kind is not NAMESPACE or arguments != ():
            raise Refused("the pickle makes an object other than an empty argparse.Namespace")
        self.stack.append(Dropped())

    def op_build(self):  # the _metadata of a state dict: module versions, of no use here; and what else has none
        state = self.pop()
        if type(self.top()) is Dropped and type(state) is dict:
            return
        if type(self.top()) is Tensor and type(state) is tuple and list(map(type, state)) == [bool, bool, dict]:
            return  # of a Parameter before PyTorch 0.4: requires_grad, volatile, hooks
        if type(self.top()) is not dict or type(state) is not dict or set(state) != {"_metadata"}:
            raise Refused("the pickle sets attributes other than the _metadata of a state dict")


OPERATIONS = {code: getattr(Pickle, "op_" + name.lower()) for code, name in OPCODES.items()
              if hasattr(Pickle, "op_" + name.lower())}


def rebuild_tensor(function, arguments):
    """_rebuild_tensor_v2(storage, offset, shape, strides, requires_grad, hooks) as a Tensor; before PyTorch 0.4 there
    were the first four only."""
    expected = [Storage, int, tuple, tuple] + [bool, dict] * (function is REBUILD_TENSOR)
    if list(map(type, arguments)) != expected or arguments[5:] not in ((), ({},)):
        raise Refused("the pickle rebuilds a tensor in a way that torch.save does not")
    storage, offset, shape, strides = arguments[:4]
    return view(storage.dtype, shape, strides, storage.span, offset)
