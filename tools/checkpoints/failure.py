"""The ways in which a conversion ends early, and text from outside made fit for their messages."""


class Failure(Exception):
    """Ends the conversion with one line on stderr: by itself, that a file cannot be read or written."""
    status = 4


class Misuse(Failure):
    """The command line asks for something impossible."""
    status = 2


class Refused(Failure):
    """The checkpoint is not one that is read; the message goes behind its path."""
    status = 3


def shown(text, limit=200):
    """Text from outside as part of one line: no control characters, no end to it."""
    text = str(text)
    text = text[:limit] + "..." * (len(text) > limit)
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def listed(names, limit=3):
    """The first few of some names."""
    names = list(names)
    rest = len(names) - limit
    return ", ".join(shown(name, 120) for name in names[:limit]) + (f" and {rest} more" if rest > 0 else "")
