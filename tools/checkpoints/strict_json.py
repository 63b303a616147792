"""JSON from outside: an object without duplicate names, and with numbers that are not unbounded."""
import json
import math

from .failure import Refused, shown


def parse_json(data, what, fractions=False):
    """A JSON object; `what` names it in messages. Numbers are whole unless fractions are allowed."""
    def unique(pairs):
        result = dict(pairs)
        if len(result) != len(pairs):
            names = sorted(name for name, _ in pairs)
            twice = next(a for a, b in zip(names, names[1:]) if a == b)
            raise Refused(f"has {what} that names {shown(twice)} twice")
        return result

    def refuse(text):
        raise Refused(f"has {what} with the number {shown(text, 30)}, which is not read")

    def whole(text):
        if len(text) > 19:  # before int(), which takes the square of the length
            refuse(text)
        return int(text)

    def fraction(text):
        return float(text) if fractions and math.isfinite(float(text)) else refuse(text)

    try:
        value = json.loads(data.decode(), object_pairs_hook=unique, parse_int=whole, parse_float=fraction,
                           parse_constant=refuse)
    except (ValueError, RecursionError):  # ValueError: not UTF-8, or not JSON
        raise Refused(f"has {what} that is no valid JSON") from None
    if type(value) is not dict:
        raise Refused(f"has {what} that is no JSON object")
    return value
