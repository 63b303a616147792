#!/usr/bin/env python3
"""Tests the reading of what torch.save wrote, in both of its containers: that nothing in a pickle can do harm."""
import os
import pickletools
import struct
import time
import unittest

from convert_support import (EMPTY_ORDERED_DICT, LEGACY_SYSTEM, REBUILD, Case, Zip, archive, array_tensor, audit_events,
                             element_strides, legacy, legacy_stream, name_of, np, number, pth, row, sizes, state_pickle,
                             storage, tensor, text, tiny)
from checkpoints import unpickle  # where it is: convert_support.py


class Pickles(Case):
    """Pickles that want more than they may: refused for the right reason, and nothing run, imported or opened."""

    def file(self, pickle, storages):
        return archive(pickle, storages).bytes()

    def check(self, pickle, storages, reason):
        path = self.path("in", self.file(pickle, storages))
        with audit_events() as events:
            status, _, message = self.run_main(path, "-o", self.output)
        self.assertEqual(status, 3, message)
        self.assertIn(reason, message)
        self.assertEqual(set(events), {("open", path)})
        self.assertEqual(os.listdir(self.folder), ["in"])

    def in_a_network(self, code, reason):
        """`code` stands where the tensor of conv1 should be."""
        self.check(*state_pickle(tiny(), replaced={"conv1.weight": code}), reason)

    def alone(self, code, reason):
        self.check(code, {}, reason)

    def test_opcode_names(self):
        self.assertEqual(unpickle.OPCODES, {ord(code): found.name for code, found in pickletools.code2op.items()})

    def test_every_other_opcode_is_refused(self):
        allowed = {name[3:].upper() for name in dir(unpickle.Pickle) if name.startswith("op_")}
        self.assertEqual(allowed, set(
            "PROTO GLOBAL BINPUT LONG_BINPUT BINGET LONG_BINGET EMPTY_TUPLE EMPTY_DICT MARK TUPLE TUPLE1 TUPLE2 TUPLE3 "
            "BINUNICODE BINSTRING SHORT_BINSTRING BININT BININT1 BININT2 LONG1 BINFLOAT NONE BINPERSID NEWFALSE "
            "NEWTRUE EMPTY_LIST APPEND APPENDS REDUCE NEWOBJ SETITEM SETITEMS BUILD STOP".split()))
        for code, name in unpickle.OPCODES.items():
            if name not in allowed:
                self.in_a_network(bytes([code]) + b"\1os\nsystem\n", f"opcode {name} is not allowed")
        self.in_a_network(b"\xff", "0xff is no pickle opcode")

    def test_globals(self):
        touch = row(text(f"touch {self.path('executed')}")) + b"R"
        for module, name in (
                ("os", "system"), ("posix", "system"), ("nt", "system"), ("builtins", "eval"), ("__builtin__", "eval"),
                ("builtins", "exec"), ("builtins", "getattr"), ("builtins", "__import__"), ("subprocess", "Popen"),
                ("torch", "load"), ("torch.hub", "load"), ("torch._utils", "_rebuild_qtensor"), ("runpy", "run_path"),
                ("torch.storage", "_load_from_bytes"), ("numpy.core.multiarray", "_reconstruct"), ("pickle", "loads"),
                ("torch", "FloatStorage.__class__"), ("torch", "_utils._rebuild_tensor_v2"), ("__main__", "x"),
                ("collections", "OrderedDict.__init__.__globals__"), ("collections", "ordereddict"), ("", "")):
            self.in_a_network(name_of(module, name) + touch, f"it wants {module}.{name}, which is not allowed")

    def test_damaged_globals(self):
        for code, reason in ((b"cos", "a global has no end"), (b"c" + b"x" * 300 + b"\n\n", "a global has no end"),
                             (b"c\xff\xfe\nx\n", "not allowed"), (b"cos\r\nsystem\r\n", "it wants os\\r.system\\r")):
            self.alone(b"\x80\x02" + code, reason)

    def test_calls(self):
        ordered, call = name_of("collections", "OrderedDict"), "in a way that torch.save does not"
        for code, reason in (
                (ordered + row(text("a")) + b"R", call), (ordered + b"}R", "no function"), (b"})R", "no function"),
                (text("os") + b")R", "no function"), (EMPTY_ORDERED_DICT + b")R", "no function"),
                (name_of("torch", "FloatStorage") + row(number(5)) + b"R", call), (REBUILD + b")R", call),
                (name_of("torch._utils", "_rebuild_parameter") + row(text("x"), b"\x89", b"}") + b"R", call),
                (REBUILD + row(storage("0", 588)) + b"R", "rebuilds a tensor in a way"),
                (tensor(storage("0", 588), 0, (4, 3, 7, 7), (147, 49, 7, 1), hooks=b"}" + text("h") + b"K\1s"),
                 "rebuilds a tensor in a way"), (b"R", "empty stack"), (b"(R", "empty stack")):
            self.in_a_network(code, reason)

    def test_attributes(self):
        own, _ = array_tensor("0", tiny()["conv1.weight"])
        for target in (own, REBUILD, text("x"), b")", b"}"):
            for state in (b"}" + text("__setstate__") + REBUILD + b"s", b"}" + text("__class__") + REBUILD + b"s", b"}",
                          row(b"}", b"}"), text("x"), b"\x89"):
                self.in_a_network(target + state + b"b", "sets attributes")
        self.in_a_network(text("x") + b"}" + text("_metadata") + b"}sb", "sets attributes")

    def test_memo(self):
        for code, reason in ((b"h\7", "recalls object 7"), (b"j\xff\xff\xff\xff", "recalls object 4294967295"),
                             (b"(q\0", "empty stack"), (b"h", "truncated")):
            self.alone(b"\x80\x02" + code, reason)
        bomb = b"".join(b"r" + struct.pack("<I", index) for index in range((1 << 18) + 1))
        self.alone(b"\x80\x02}" + bomb + b".", "remembers more than 262144")

    def test_lists_and_numbers(self):
        for code, reason in ((b")" + text("a") + b"a", "no list"), (b"}(" + text("a") + b"e", "no list"),
                             (b"e", "a mark"), (b"]a", "empty stack"),
                             (b"\x8a\x11" + bytes(17), "a number has 17 bytes"),
                             (b"\x8a\x05ab", "truncated"), (b"G\0", "truncated"), (b"U\x05ab", "truncated"),
                             (b"T\xff\xff\xff\xffab", "truncated"), (b"U\2\xff\xfe", "not UTF-8")):
            self.alone(b"\x80\x02" + code, reason)

    def test_opcodes_are_counted(self):
        self.alone(b"\x80\x02" + b"N" * (1 << 20) + b".", "more than 1048576 opcodes")

    def test_objects(self):
        only, namespace = "other than an empty argparse.Namespace", name_of("argparse", "Namespace")
        for code, reason in (
                (REBUILD + b")\x81", only), (text("x") + b")\x81", only), (namespace + row(text("x")) + b"\x81", only),
                (namespace + b")R", "in a way that torch.save does not"), (b"))\x81", only),
                (namespace + b")\x81" + text("x") + b"b", "sets attributes"),
                (namespace + b")\x81}" + text("a") + b"K\1sb", "conv1.weight in it is no tensor")):
            self.in_a_network(code, reason)

    def test_sixty_malicious_pickles(self):
        """Twenty callables, called in each of the ways that pickle knows, from each place in a checkpoint."""
        calls = {}
        command = text(f"touch {self.path('executed')}")
        for module, name in (
                ("os", "system"), ("posix", "system"), ("os", "popen"), ("os", "execv"), ("subprocess", "Popen"),
                ("subprocess", "check_output"), ("builtins", "eval"), ("builtins", "exec"), ("builtins", "__import__"),
                ("builtins", "getattr"), ("builtins", "open"), ("__builtin__", "eval"), ("importlib", "import_module"),
                ("runpy", "run_path"), ("pickle", "loads"), ("shutil", "rmtree"), ("socket", "create_connection"),
                ("ctypes", "CDLL"), ("torch", "load"), ("operator", "attrgetter")):
            for way, code in (("REDUCE", name_of(module, name) + row(command) + b"R"),
                              ("INST", b"(" + command + b"i" + module.encode() + b"\n" + name.encode() + b"\n"),
                              ("OBJ", b"(" + name_of(module, name) + command + b"o"),
                              ("NEWOBJ", name_of(module, name) + row(command) + b"\x81"),
                              ("STACK_GLOBAL", text(module) + text(name) + b"\x93" + row(command) + b"R")):
                calls[module, name, way] = code, way if way in ("INST", "STACK_GLOBAL") else f"{module}.{name}"
        self.assertGreaterEqual(len(calls), 60)
        for code, reason in calls.values():
            pickle, storages = state_pickle(tiny(blocks=(1,)))
            self.in_a_network(code, reason)
            self.alone(b"\x80\x02" + code + b".", reason)
            wrapped = b"\x80\x02}" + text("optimizer") + code + b"s" + text("state_dict") + pickle[2:-1] + b"s."
            self.check(wrapped, storages, reason)

    def test_nesting(self):
        doubled = b")" + b"q\0h\0\x86" * 5000
        for code in (b")" + b"\x85" * 300000, doubled, b"}" + (b"q\0" + text("k") + b"h\0s") + b"\x85" * 9):
            started = time.monotonic()
            self.in_a_network(code, "conv1.weight in it is no tensor")
            self.assertLess(time.monotonic() - started, 10)
        self.alone(b"\x80\x02" + b"(" * 300000, "truncated")
        self.alone(b"\x80\x02" + b"(" * 300000 + b".", "does not end with its one object")
        self.alone(b"\x80\x02}q\0" + text("state_dict") + b"h\0s.", "holds no state dict: state_dict in it")

    def test_persistent_ids(self):
        kind, strange = name_of("torch", "FloatStorage"), "a persistent id"
        parts = [text("storage"), kind, text("0"), text("cpu"), number(588)]  # of conv1.weight
        for code in (b"}", text("storage"), b")", row(*parts[:4]), row(*parts, b"}"), row(text("module"), *parts[1:]),
                     row(parts[0], name_of("collections", "OrderedDict"), *parts[2:]), row(*parts[:4], b"\x88"),
                     row(parts[0], text("FloatStorage"), *parts[2:]), row(*parts[:2], number(0), *parts[3:])):
            self.in_a_network(code + b"Q", strange)
        for key in ("../x", "/etc/passwd", "0/../1", "", "0\n", "-1", "1e0", " 0", "\u0663", "0" * 21, "..\n\x1b[31m"):
            self.in_a_network(storage(key, 588), "which is no number")

    def test_views_outside_their_storage(self):
        held, shape, strides = storage("0", 588), (4, 3, 7, 7), (147, 49, 7, 1)
        for offset, sides, steps in (
                (1, shape, strides), (588, (1,), (1,)), (2 ** 31 - 1, shape, strides), (0, shape, (147, 49, 7, 2)),
                (0, shape, (2 ** 31 - 1, 49, 7, 1)), (0, (2 ** 31 - 1,), (0,)), (0, (30000, 30000), (0, 0)),
                (0, (4, 3, 7, 8), strides), (0, (2 ** 31 - 1,) * 8, (0,) * 8)):
            self.in_a_network(tensor(held, offset, sides, steps), "reaches outside its storage of 588 elements")
        for offset, sides, steps in (
                (-1, shape, strides), (0, (-4, 3, 7, 7), strides), (587, shape, (-147, 49, 7, 1)), (0, shape, (1,)),
                (0, shape, ()), (0, (1,) * 9, (1,) * 9)):
            self.in_a_network(tensor(held, offset, sides, steps), "are not a few sizes")
        odd = REBUILD + row(held, number(0), row(b"\x88", text("3")), sizes((1, 1)), b"\x89", b"}") + b"R"
        self.in_a_network(odd, "are not a few sizes")

    def test_damaged_pickles(self):
        for code, reason in (
                (b".", "does not end"), (b"\x80\x02}}.", "does not end"),
                (b"\x80\x02(}.", "does not end"), (b"\x80\x04}.", "protocol 4"),
                (b"}\x80\x02.", "protocol 2"), (b"\x80\x02X\xff\xff\xff\xffab", "truncated"),
                (b"\x80\x02X\2\0\0\0\xff\xfe.", "not UTF-8"), (b"\x80\x02t.", "a mark"), (b"\x80\x02u.", "a mark"),
                (b"\x80\x02}(K\1u.", "no dict"), (b"\x80\x02)(" + text("a") + b"K\1u.", "no dict"),
                (b"\x80\x02}K\1K\1s.", "1 in it is no tensor"), (b"\x80\x02}))s.", "no string or number"),
                (b"\x80\x02}s.", "empty stack"),
                (b"\x80\x02}" + (text("a") + b"K\1s") * 2 + b".", "a is there twice"),
                (b"\x80\x02K\1.", "no state dict"), (b"\x80\x02" + REBUILD + b".", "no state dict"),
                (b"\x80\x02}" + text("a") + b"K\1s.", "a in it is no"),
                (b"\x80\x02\x86.", "empty stack")):
            self.alone(code, reason)


class LegacyPickles(Pickles):
    """The same in the format before PyTorch 1.6."""

    def file(self, pickle, storages):
        return legacy_stream(pickle, {key: data for key, data in storages.items() if text(key) + text("cpu") in pickle})

    def alone(self, code, reason):
        if reason == "truncated":  # what follows an object that does not end is taken for its rest
            self.refused(legacy_stream(code, {}, keys=b"", data=b""), reason)
        else:
            super().alone(code, reason)


class Legacy(Case):
    def with_part(self, reason, arrays=None, **parts):
        self.refused(legacy_stream(*state_pickle(arrays or tiny()), **parts), reason)

    def test_first_pickles(self):
        self.with_part("legacy protocol 1000", protocol=b"\x80\x02M\xe8\x03.")
        self.with_part("legacy protocol {}", protocol=b"\x80\x02}.")
        self.with_part("big-endian", system=LEGACY_SYSTEM.replace(b"\x88", b"\x89"))
        self.with_part("big-endian", system=b"\x80\x02}.")
        self.with_part("big-endian", system=b"\x80\x02).")
        for part in ("protocol", "system", "keys"):
            for code, reason in ((name_of("os", "system") + row(text("x")) + b"R.", "it wants os.system"),
                                 (storage("0", 5).replace(b"tQ", b"NtQ") + b".", "where no tensor can be"),
                                 (b"", "byte ")):
                self.with_part(reason, **{part: b"\x80\x02" + code})

    def test_storages(self):
        arrays = tiny(blocks=(1,))
        _, storages = state_pickle(arrays)
        keys = list(storages)
        for names in (keys[1:], keys + ["99"], [], keys + keys[:1], keys[:-1] + ["..\n"]):
            self.with_part("lists other storages", arrays, keys=b"\x80\x02](" + b"".join(map(text, names)) + b"e.")
        self.with_part("lists other storages", arrays, keys=b"\x80\x02}.")
        good = legacy(arrays)
        for size in (1, 4, 11, 2000):
            self.refused(good[:-size], "is truncated")
        self.refused(good + b"\0", "1 bytes behind its last storage")
        at = len(good) - sum(8 + len(data) for data in storages.values())
        for count in (0, 1, 587, 2 ** 63, 2 ** 64 - 1):
            self.refused(good[:at] + struct.pack("<Q", count) + good[at + 8:], f"storage 0 holds {count} numbers")

    def test_storages_that_cannot_be(self):
        for code, reason in (
                (storage("0", 2 ** 31 - 1), "is said to hold 2147483647 float32 in a file of"),
                (storage("0", -588), "is said to hold -588"),
                (row(tensor(storage("0", 588), 0, (1,), (1,)), storage("0", 587)), "described in two ways"),
                (row(tensor(storage("0", 588), 0, (1,), (1,)), storage("0", 588, "LongStorage")),
                 "described in two ways")):
            self.refused(legacy(tiny(), replaced={"conv1.weight": code}), reason)
        partial = storage("0", 588).replace(b"tQ", row(text("0"), number(0), number(5)) + b"tQ ")
        self.refused(legacy(tiny(), replaced={"conv1.weight": partial}), "part of another")

    def test_tensors_before_04(self):
        """Four arguments, parameters that are objects, and strings of Python 2."""
        arrays = tiny()
        pickle, storages = state_pickle(arrays)
        old = pickle.replace(b"_rebuild_tensor_v2", b"_rebuild_tensor").replace(b"\x89" + EMPTY_ORDERED_DICT + b"tR",
                                                                                b"tR")
        self.assertNotEqual(old, pickle)
        parameter = tensor(storage("1", 4), 0, (4,), (1,)).replace(b"_v2", b"").replace(
            b"\x89" + EMPTY_ORDERED_DICT + b"tR", b"tR")
        self.assertIn(parameter, old)
        old = old.replace(parameter, name_of("torch.nn.parameter", "Parameter") + parameter + b"\x85R" +
                          row(b"\x88", b"\x89", EMPTY_ORDERED_DICT) + b"b")
        old = old.replace(text("storage"), b"U\7storage").replace(text("fc.bias"), b"T\7\0\0\0fc.bias")
        self.assertEqual(self.converted(legacy_stream(old, storages)), self.converted(pth(arrays)))

    def test_shared_storages(self):
        arrays = tiny()
        whole = np.concatenate([array.reshape(-1) for array in arrays.values()])
        replaced, at = {}, 0
        for name, array in arrays.items():
            replaced[name] = tensor(storage("94020243121552", whole.size), at, array.shape, element_strides(array))
            at += array.size
        pickle, _ = state_pickle(arrays, replaced)
        self.assertEqual(self.converted(legacy_stream(pickle, {"94020243121552": whole.tobytes()})),
                         self.converted(pth(arrays)))


class Training(Case):
    """Checkpoints of training scripts, which hold more than weights."""

    def test_optimizer_epochs_and_arguments(self):
        arrays = tiny()
        pickle, storages = state_pickle(arrays)
        own, storages["99"] = array_tensor("99", np.ones(3, "<f4"))
        state = b"}(K\0}" + text("momentum_buffer") + own + b"su"
        groups = b"](}(" + text("lr") + b"G" + struct.pack(">d", 0.1) + text("foreach") + b"N" + (
            text("params") + b"](K\0K\1e") + b"ue"
        whole = (b"\x80\x02}(" + text("optimizer") + b"}(" + text("state") + state + text("param_groups") + groups +
                 b"u" +
                 text("args") + name_of("argparse", "Namespace") + b")\x81}" + text("lr") + b"K\1sb" +
                 text("seed") + b"\x8a\5abcde" + text("state_dict") + pickle[2:-1] + b"u.")
        expected = self.converted(pth(arrays))
        self.assertEqual(self.converted(archive(whole, storages).bytes()), expected)
        self.assertEqual(self.converted(legacy_stream(whole, storages)), expected)
        self.assertIn("its state_dict", self.report)

    def test_averaged_weights_are_preferred(self):
        arrays = tiny()
        averaged = {name: array + 1 for name, array in arrays.items()}
        both = {**{f"a.{name}": array for name, array in arrays.items()},
                **{f"b.{name}": array for name, array in averaged.items()}}
        keys, code = iter(range(len(both))), {}
        storages = {}
        for name, array in both.items():
            key = str(next(keys))
            code[name], storages[key] = array_tensor(key, array)
        for wrapper in ("state_dict_ema", "model_ema", "ema"):
            whole = b"\x80\x02}("
            for wrapped, front in (("state_dict", "a."), (wrapper, "b.")):
                whole += text(wrapped) + b"}(" + b"".join(
                    text(name[2:]) + tensor_ for name, tensor_ in code.items() if name.startswith(front)) + b"u"
            self.assertEqual(self.converted(archive(whole + b"u.", storages).bytes()), self.converted(pth(averaged)))
            self.assertIn(f"its {wrapper}", self.converted(archive(whole + b"u.", storages).bytes()) and self.report)


class ZipOnly(Case):
    """What only an archive can have wrong with its pickle."""

    def in_a_network(self, code, reason):
        self.refused(archive(*state_pickle(tiny(), replaced={"conv1.weight": code})).bytes(), reason)

    def test_members_of_storages(self):
        self.in_a_network(storage("99", 588), "no member net/data/99")
        for count in (587, 589, 0, -588, 2 ** 31 - 1, -2 ** 31):
            self.in_a_network(storage("0", count), f"is said to hold {count} float32")
        for other in ("HalfStorage", "DoubleStorage", "LongStorage"):
            self.in_a_network(storage("0", 588, other), "its member has 2352 bytes")

    def test_scattered_view(self):
        count = 8 << 20
        strided = tensor(storage("99", count), 0, (3,), (count // 2 - 1,))
        pickle, storages = state_pickle(tiny(), replaced={"fc.bias": strided})
        self.refused(archive(pickle, {**storages, "99": bytes(4 * count)}).bytes(),
                     "fc.bias: a tensor of 3 is scattered over")

    def test_length_of_the_pickle(self):
        for code, reason in ((b"", "truncated"), (b"\x80", "truncated"), (b"\x80\x02}", "truncated"),
                             (b"\x80\x02X", "truncated"), (b"\x80\x02}..", "does not end"),
                             (bytes((4 << 20) + 1), "more than the 4194304")):
            self.refused(archive(code, {}).bytes(), reason)


class Archives(Case):
    def spoilt(self, reason, spoil):
        parts = archive(*state_pickle(tiny()))
        spoil(parts)
        self.refused(parts.bytes(), reason)

    def with_member(self, reason, name=b"net/data/0", **changes):
        self.spoilt(reason, lambda parts: parts[name].update(changes))

    def with_ends(self, reason, **changes):
        """The same change in both end records."""
        self.spoilt(reason, lambda parts: parts.end.update(changes, zip64=changes))

    def with_end64(self, reason, **changes):
        self.spoilt(reason, lambda parts: parts.end.update(zip64=changes))

    def test_members(self):
        size = len(archive(*state_pickle(tiny())).bytes())
        self.with_member("compressed ZIP member, net/data/0", method=8)
        self.with_member("compressed ZIP member", packed=100)
        self.with_member("encrypted ZIP member", flags=0x809)
        self.with_member("encrypted ZIP member", flags=0x848)
        self.with_member("lies outside the file", size=size, packed=size)
        self.with_member("lies outside the file", size=0xFFFFFFFF, packed=0xFFFFFFFF,
                         extra=struct.pack("<2H2Q", 1, 16, 2352, 2352))
        self.with_member("overlap", name=b"net/version", size=99, packed=99)
        self.with_member("differs from the directory", local_name=b"net/data/1")
        self.with_member("differs from the directory", local=5)
        self.with_member("is truncated", local=size - 3)
        self.with_member("is truncated", local=0xFFFFFFFF)
        self.with_member("is damaged", crc=1)
        self.spoilt("not UTF-8", lambda parts: parts[b"net/version"].update(name=b"net/\xff"))
        self.spoilt("two ZIP members called net/version", lambda parts: parts[b"net/data/3"].update(
            name=b"net/version", local_name=b"net/version"))

    def test_data_pkl(self):
        self.spoilt("it has 0 members", lambda parts: parts.members.pop(0))
        self.spoilt("it has 2 members", lambda parts: parts.members.append(
            {**parts.members[0], "name": b"old/data.pkl", "local_name": b"old/data.pkl"}))
        for order, reason in ((b"big", "big-endian"), (b"x" * 99, "big-endian")):
            pickle, storages = state_pickle(tiny())
            parts = archive(pickle, storages)
            parts.members += Zip([(b"net/byteorder", order)]).members
            self.refused(parts.bytes(), reason)

    def test_directory(self):
        self.with_ends("longer than its members", count=2)
        self.with_ends("shorter than its members", count=500)
        self.with_ends("damaged ZIP directory", position=0)
        self.with_ends("lies outside the file", position=0xFFFFFFFF)
        self.with_ends("lies outside the file", size=0xFFFFFFFF)
        self.with_ends("lies outside the file", size=0xFFFFFFFF, position=0xFFFFFFFF, count=0xFFFF)
        self.with_ends("several parts", disk=1)
        for changes in ({"count": 3}, {"size": 1}, {"position": 2 ** 63}, {"position": 0}, {"at": 0}):
            self.with_end64("ZIP64 end record that contradicts", **changes)
        self.with_end64("ZIP64 end record that lies outside the file", at=2 ** 64 - 1)

    def test_long_directory(self):
        parts = archive(*state_pickle(tiny()))
        parts.members += Zip([(b"net/" + b"%05d" % i + b"x" * 60000, b"") for i in range(80)]).members
        self.refused(parts.bytes(), "has a ZIP directory of 48")

    def test_bytes_in_front_behind_or_missing(self):
        data = pth(tiny())
        self.refused(data + b"\0", "without its end")
        self.refused(b"PK" + data, "contradicts")
        for size in (2, 3, 21, 22, 100, len(data) // 2, len(data) - 1):
            self.refused(data[:size], "truncated")


if __name__ == "__main__":
    unittest.main()
