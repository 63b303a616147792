"""A reader of protobuf messages that reads what it is asked for, and only looks past the rest."""
from .failure import Refused
from .files import Span

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
MAX_FIELDS = 1 << 20  # of a whole file; an ONNX file of 1202 layers has 97,000
MAX_TEXT = 1 << 10  # bytes of a name


class Budget:
    """What all messages of a file may have together."""

    def __init__(self):
        self.fields = 0

    def spend(self):
        self.fields += 1
        if self.fields > MAX_FIELDS:
            raise Refused(f"has more than {MAX_FIELDS} protobuf fields")


class Message:
    """The fields of a message: number -> list of values; a value is an int, or the Span of what has a length."""

    def __init__(self, span, budget):
        self.span, self.budget, self.fields = span, budget, {}
        at = 0
        while at < span.size:
            budget.spend()
            at = self.parse_field(at)

    def parse_field(self, at):
        """Take in the field at this place; returns where the next one is."""
        window = self.span.read(at, min(20, self.span.size - at))  # a key and a length have 10 bytes at most, each
        key, used = varint(window, 0)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            value, used = varint(window, used)
        elif kind in (FIXED64, FIXED32):
            size = 8 if kind == FIXED64 else 4
            value = int.from_bytes(self.part(at + used, size).read(), "little")
            used += size
        elif kind == BYTES:
            size, used = varint(window, used)
            value = self.part(at + used, size)
            used += size
        else:
            raise Refused(f"has a protobuf field of the kind {kind}, which is not read")
        self.fields.setdefault(number, []).append(value)
        return at + used

    def part(self, at, size):
        if size > self.span.size - at:
            raise Refused("has a protobuf field that reaches outside its message")
        return Span(self.span.source, self.span.position + at, size)

    def values(self, number, kind):
        """All values of a field, which are ints or Spans."""
        values = self.fields.get(number, [])
        if not all(type(value) is kind for value in values):
            raise Refused(f"has a protobuf field {number} of another type than is known")
        return values

    def integer(self, number, default=0):
        return signed((self.values(number, int) or [default])[-1])

    def integers(self, number):
        """A repeated whole number, packed or not."""
        result = []
        for value in self.fields.get(number, []):
            result += [value] if type(value) is int else unpacked(value, self.budget)
        return [signed(value) for value in result]

    def text(self, number):
        return (self.texts(number) or [""])[-1]

    def texts(self, number):
        return [decoded(span) for span in self.values(number, Span)]

    def messages(self, number):
        return [Message(span, self.budget) for span in self.values(number, Span)]

    def message(self, number):
        """The last of its kind; an empty one where there is none."""
        spans = self.values(number, Span)
        return Message(spans[-1] if spans else Span(self.span.source, self.span.position, 0), self.budget)


def varint(data, at):
    """A number of at most 64 bits, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise Refused("has a protobuf message that ends within a number")
        byte, at = data[at], at + 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >> 64:
                break
            return value, at
    raise Refused("has a protobuf number of more than 64 bits")


def unpacked(span, budget):
    if span.size > MAX_FIELDS:
        raise Refused(f"has a list of numbers of {span.size} bytes, more than the {MAX_FIELDS} that are read")
    data, at, values = span.read(), 0, []
    while at < len(data):
        budget.spend()
        value, at = varint(data, at)
        values.append(value)
    return values


def signed(value):
    return value - (1 << 64) if value >> 63 else value


def decoded(span):
    if span.size > MAX_TEXT:
        raise Refused(f"has a name of {span.size} bytes, more than the {MAX_TEXT} that are read")
    try:
        return span.read().decode()
    except UnicodeDecodeError:
        raise Refused("has a name that is not UTF-8") from None
