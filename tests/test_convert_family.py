#!/usr/bin/env python3
"""Tests which networks tools/convert.py recognises, by which names, and what config files add."""
import dataclasses
import json
import re
import unittest

from convert_support import (Case, f32, names_and_shapes, np, parse_tensors, pth, rounded, safetensors, tiny, u32)
from checkpoints import network  # where it is: convert_support.py

FAMILY = {  # arguments of tiny, and the header's bytes 33 to 38: stride_at, stem, shortcut, attention, head
    "resnext": ({"bottleneck": True, "inner": 16, "groups": 4}, (0, 0, 0, 0, 0)),
    "wide": ({"bottleneck": True, "inner": 8}, (0, 0, 0, 0, 0)),
    "deep": ({"stem": "deep", "width": 8}, (0, 1, 0, 0, 0)),
    "tiered": ({"stem": "tiered", "width": 8, "bottleneck": True}, (0, 2, 0, 0, 0)),
    "attention": ({"attention": 3}, (0, 0, 0, 1, 0)),
    "attention and groups": ({"attention": 8, "bottleneck": True, "inner": 16, "groups": 2}, (0, 0, 0, 1, 0)),
    "CIFAR": ({"stem": "3x3", "padded": True, "blocks": (2, 2, 2)}, (0, 3, 2, 0, 0)),
    "CIFAR with convolutions": ({"stem": "3x3", "blocks": (1, 1, 1, 1)}, (0, 3, 0, 0, 0)),
    "no head": ({"classes": 0}, (0, 0, 0, 0, 2)),
    "one channel, one class": ({"channels": 1, "classes": 1}, (0, 0, 0, 0, 0)),
    "sixteen channels": ({"channels": 16}, (0, 0, 0, 0, 0)),
}


def as_timm(arrays, pooled=False):
    """timm's names: a shortcut's pool has the index 0, and the layers of squeeze-and-excitation are convolutions."""
    return {re.sub(r"downsample\.([01])", lambda found: f"downsample.{int(found[1]) + 1}", name) if pooled else name:
            array[:, :, None, None] if re.search(r"se\.fc[12]\.weight", name) else array for name,
            array in arrays.items()}


def as_hugging_face(arrays):
    """Hugging Face's names, told again from transformers' source."""
    renamed = {}
    for name, array in arrays.items():
        if name.startswith("fc."):
            name = "classifier.1." + name[3:]
        elif name.startswith("layer"):
            stage, block, rest = name[5:].split(".", 2)
            at = f"resnet.encoder.stages.{int(stage) - 1}.layers.{block}."
            if rest.startswith("downsample"):
                name = f"{at}shortcut.{'convolution' if rest[11] == '0' else 'normalization'}.{rest[13:]}"
            else:
                kind, k, part = re.fullmatch("(conv|bn)([123])[.](.*)", rest).groups()
                name = f"{at}layer.{int(k) - 1}.{'convolution' if kind == 'conv' else 'normalization'}.{part}"
        else:
            kind, part = name.split("1.")
            name = f"resnet.embedder.embedder.{'convolution' if kind == 'conv' else 'normalization'}.{part}"
        renamed[name] = array
    return renamed


class Family(Case):
    def check(self, data, kind, kinds):
        self.assertEqual(tuple(data[33:38]), kinds)
        found = parse_tensors(data, names_and_shapes(**kind))
        for name, array in tiny(**kind).items():
            np.testing.assert_array_equal(found[name], array, name)

    def test_members(self):
        for name, (kind, kinds) in FAMILY.items():
            with self.subTest(name):
                data = self.converted(safetensors(as_timm(tiny(**kind))))
                self.check(data, kind, kinds)
                self.assertEqual(u32(data, 60), kind.get("groups", 1))
                self.assertEqual(u32(data, 72), kind.get("channels", 3))
                self.assertEqual(u32(data, 84), kind.get("classes", 3))
                self.assertEqual(u32(data, 76, 2), (32, 32) if kind.get("stem") == "3x3" else (224, 224))
                self.assertEqual(u32(data, 92), 0 if kind.get("stem") == "3x3" else 256)

    def test_width_per_group(self):
        data = self.converted(safetensors(tiny(bottleneck=True, inner=16, groups=4, width=8)))
        self.assertEqual(u32(data, 56, 3), (8, 4, 32))
        self.assertIn("4 groups of width 32", self.report)

    def test_attention_width(self):
        for least, width in ((3, 4), (8, 4), (8, 128), (4, 64)):
            kind = {"attention": least, "width": width, "blocks": (1,)}
            data = self.converted(safetensors(as_timm(tiny(**kind))))
            self.assertEqual(max(u32(data, 100), width // 16), max(least, width // 16))
        self.assertEqual(u32(self.converted(safetensors(tiny(attention=8, width=256, blocks=(1,)))), 100), 8)

    def test_average_pool_shortcut(self):
        for kind in ({"bottleneck": True}, {"stem": "deep", "width": 8}):
            data = self.converted(safetensors(as_timm(tiny(**kind), pooled=True)))
            self.check(data, kind, (0, 1 if "stem" in kind else 0, 1, 0, 0))
            self.assertIn("names of timm", self.report)

    def test_options(self):
        arrays = tiny(bottleneck=True, blocks=(1, 1, 1, 1))
        self.assertEqual(self.converted(pth(arrays), "--stride-at", "1x1")[33], 1)
        self.assertIn("stride in the first 1x1", self.report)
        self.assertEqual(self.converted(pth(arrays), "--head", "sigmoid")[37], 1)
        for stride in (8, 16):
            self.assertEqual(u32(self.converted(pth(arrays), "--output-stride", str(stride)), 68), stride)
        self.assertEqual(self.converted(pth(tiny()), "--stride-at", "1x1")[33], 0)

    def test_options_that_do_not_fit(self):
        for arrays, options in ((tiny(blocks=(1, 1, 1, 1)), ("--output-stride", "16")),
                                (tiny(bottleneck=True), ("--output-stride", "8")),
                                (tiny(bottleneck=True, blocks=(1, 1, 1)), ("--output-stride", "16")),
                                (as_timm(tiny(bottleneck=True, blocks=(1, 1, 1, 1)), pooled=True),
                                 ("--output-stride", "8"))):
            self.refused(pth(arrays), "cannot have an output stride of", *options, status=2)
        self.refused(pth(tiny(channels=1)), "--channels bgr is for 3 channels", "--channels", "bgr", status=2)

    def test_channels(self):
        arrays = tiny()
        mirrored = {**arrays, "conv1.weight": arrays["conv1.weight"][:, ::-1].copy()}
        self.assertEqual(self.converted(pth(mirrored), "--channels", "bgr"), self.converted(pth(arrays)))
        deep = tiny(stem="deep", width=8)
        mirrored = {**deep, "conv1.0.weight": deep["conv1.0.weight"][:, ::-1].copy()}
        self.assertEqual(self.converted(pth(mirrored), "--channels", "bgr"), self.converted(pth(deep)))

    def test_biases_of_convolutions(self):
        arrays = tiny()
        bias = np.array([1, 2, 3, 4], "<f4") / 8
        data = self.converted(pth({**arrays, "conv1.bias": bias}))
        found = parse_tensors(data, names_and_shapes())
        np.testing.assert_array_equal(found["bn1.running_mean"], arrays["bn1.running_mean"] - bias)
        np.testing.assert_array_equal(found["bn1.bias"], arrays["bn1.bias"])
        self.refused(pth({**arrays, "conv1.bias": bias[:2]}), "1 unexpected: conv1.bias")


class Names(Case):
    def test_hugging_face(self):
        for kind in ({}, {"bottleneck": True, "blocks": (2, 1)}, {"classes": 0}):
            arrays = tiny(**kind)
            expected = self.converted(pth(arrays))
            self.assertEqual(self.converted(safetensors(as_hugging_face(arrays))), expected)
            self.assertIn("names of Hugging Face behind resnet.", self.report)
            bare = {name.removeprefix("resnet."): array for name, array in as_hugging_face(arrays).items()}
            if not kind.get("classes", 1):
                self.assertEqual(self.converted(safetensors(bare)), expected)

    def test_prefixes(self):
        arrays = tiny()
        expected = self.converted(pth(arrays))
        for prefix in ("module.", "model.", "backbone.", "backbone.body.", "encoder.", "module.model.", "net.0."):
            self.assertEqual(self.converted(pth(arrays, prefix=prefix)), expected)
            self.assertIn(f"behind {prefix}", self.report)
        counters = {"n_averaged": np.array(3, "<i8"), "module.bn1.num_batches_tracked": np.array(3, "<i8"),
                    **{f"module.{name}": array for name, array in arrays.items()}}
        self.assertEqual(self.converted(pth(counters)), expected)

    def test_heads(self):
        arrays = tiny()
        expected = self.converted(pth(arrays))
        for head in ("linear", "head", "classifier", "head.fc", "last_linear", "classifier.1"):
            renamed = {name.replace("fc.", f"{head}.", 1): array for name, array in arrays.items()}
            self.assertEqual(self.converted(pth(renamed)), expected)
            outside = {name if name.startswith(head) else f"backbone.{name}": array for name, array in renamed.items()}
            self.assertEqual(self.converted(pth(outside)), expected)
        self.assertEqual(self.converted(pth({**arrays, "fc.weight": arrays["fc.weight"][:, :, None, None]})), expected)

    def test_detectors_give_their_backbone(self):
        arrays = tiny(classes=0)
        detector = {f"backbone.body.{name}": array for name, array in arrays.items()}
        detector["backbone.fpn.layer_blocks.0.weight"] = np.ones((4, 4, 3, 3), "<f4")
        detector["roi_heads.box_predictor.cls_score.weight"] = np.ones((2, 8), "<f4")
        data = self.converted(pth(detector))
        self.assertEqual(data, self.converted(pth(arrays)))
        self.converted(pth(detector))
        self.assertIn("classes        none, no head", self.report)
        self.assertIn("2 tensors of other parts: backbone.fpn.layer_blocks.0.weight, roi_heads", self.report)

    def test_two_networks(self):
        two = {f"{prefix}{name}": array for prefix in ("encoder_q.", "encoder_k.") for name, array in tiny().items()}
        self.refused(pth(two), "holds 2 networks, under encoder_k., encoder_q.")

    def test_shortcut_names(self):
        arrays = tiny(stem="3x3", blocks=(1, 1))
        renamed = {name.replace("downsample", "shortcut"): array for name, array in arrays.items()}
        self.assertEqual(self.converted(pth(renamed)), self.converted(pth(arrays)))
        self.refused(pth({**arrays, **renamed}), "two tensors that are layer2.0.downsample.0.weight")


class Configs(Case):
    TIMM = {"architecture": "seresnext50_32x4d", "num_classes": 3, "pretrained_cfg": {
        "input_size": [3, 224, 256], "crop_pct": 0.95, "interpolation": "bicubic", "mean": [0.5, 0.25, 0],
        "std": [0.5, 1, 2],
        "crop_mode": "center"}}
    FACE = {"model_type": "resnet", "id2label": {"1": "dog", "0": "cat", "2": "crêpe, or pancake"},
            "downsample_in_bottleneck": False, "hidden_act": "relu"}
    PROCESSOR = {"crop_pct": 0.875, "size": 224, "resample": 3, "image_mean": [0.5, 0.25, 0], "image_std": [0.5, 1, 2]}

    def with_configs(self, *configs, options=(), arrays=None):
        paths = [argument for i, config in enumerate(configs)
                 for argument in ("--config", self.path(f"{i}.json", json.dumps(config).encode()))]
        return self.converted(pth(arrays or tiny()), *paths, *options)

    def picture(self, data):
        return u32(data, 76, 2), u32(data, 92), data[39], f32(data, 128, 3), f32(data, 192, 3)

    def test_timm(self):
        expected = ((224, 256), 235, 1, [0.5, 0.25, 0], [0.5, 1, 2])
        self.assertEqual(self.picture(self.with_configs(self.TIMM)), expected)
        flat = {**self.TIMM["pretrained_cfg"], "architecture": "resnet50"}
        self.assertEqual(self.picture(self.with_configs(flat)), expected)
        named = {**self.TIMM, "label_names": ["n1", "n2", "n3"], "label_descriptions": {"n1": "a", "n3": "c"}}
        self.assertEqual(self.with_configs(named)[256:263], b"a\nn2\nc\n")

    def test_timm_resizes_round_down(self):
        for side, part, resize in ((224, 0.875, 256), (224, 0.95, 235), (288, 1.0, 288), (160, 0.95, 168),
                                   (176, 0.875, 201),
                                   (224, 0.965, 232)):
            config = {"input_size": [3, side, side], "crop_pct": part}
            self.assertEqual(u32(self.with_configs(config), 92), resize)

    def test_hugging_face(self):
        data = self.with_configs(self.FACE, self.PROCESSOR)
        self.assertEqual(self.picture(data), ((224, 224), 256, 1, [0.5, 0.25, 0], [0.5, 1, 2]))
        self.assertEqual(data[256:256 + u32(data, 96)], "cat\ndog\ncrêpe, or pancake\n".encode())
        self.assertIn("labels of", self.report)
        self.assertEqual(u32(self.with_configs(self.FACE, arrays=tiny(classes=0)), 96), 0)
        bottleneck = tiny(bottleneck=True)
        for first in (False, True):
            config = {**self.FACE, "downsample_in_bottleneck": first, "problem_type": "multi_label_classification"}
            self.assertEqual(tuple(self.with_configs(config, arrays=bottleneck)[33:38]), (first, 0, 0, 0, 1))
        self.assertEqual(self.with_configs({**self.FACE, "downsample_in_bottleneck": True}, arrays=bottleneck,
                                           options=("--stride-at", "3x3"))[33], 0)

    def test_processors(self):
        for changes, expected in (
                ({}, ((224, 224), 256, 1, [0.5, 0.25, 0], [0.5, 1, 2])),
                ({"size": {"shortest_edge": 224}, "resample": 2}, ((224, 224), 256, 0, [0.5, 0.25, 0], [0.5, 1, 2])),
                ({"size": {"shortest_edge": 384}}, ((384, 384), 384, 1, [0.5, 0.25, 0], [0.5, 1, 2])),
                ({"size": {"height": 224, "width": 192}, "crop_pct": None},
                 ((224, 192), 192, 1, [0.5, 0.25, 0], [0.5, 1, 2])),
                ({"size": {"shortest_edge": 256}, "crop_size": {"height": 200, "width": 224}},
                 ((200, 224), 256, 1, [0.5, 0.25, 0], [0.5, 1, 2])),
                ({"do_resize": False}, ((224, 224), 0, 1, [0.5, 0.25, 0], [0.5, 1, 2])),
                ({"do_normalize": False}, ((224, 224), 256, 1, [0, 0, 0], [1, 1, 1])),
                ({"rescale_factor": 0.00392156862745098}, ((224, 224), 256, 1, [0.5, 0.25, 0], [0.5, 1, 2])),
                ({"rescale_factor": 2 / 255}, ((224, 224), 256, 1, [0.25, 0.125, 0], [0.25, 0.5, 1])),
                ({"do_rescale": False, "image_mean": [51, 0, 0], "image_std": [255, 51, 1]},
                 ((224, 224), 256, 1, rounded([0.2, 0, 0]), rounded([1, 0.2, 1 / 255])))):
            self.assertEqual(self.picture(self.with_configs({**self.PROCESSOR, **changes})), expected, changes)
            squashes = changes.get("size") in ({"shortest_edge": 384}, {"height": 224, "width": 192})
            self.assertEqual("squashes the whole picture" in self.report, squashes, changes)

    def test_options_count_before_files(self):
        data = self.with_configs(self.PROCESSOR, self.FACE, options=(
            "--crop", "64", "--resize", "0", "--interpolation", "bilinear", "--mean", "0,0,0", "--std", "1,1,1",
            "--labels",
            self.path("labels", b"x\ny\nz\n")))
        self.assertEqual(self.picture(data), ((64, 64), 0, 0, [0] * 3, [1] * 3))
        self.assertEqual(data[256:262], b"x\ny\nz\n")

    def test_files_beside_are_not_read_but_named(self):
        self.path("config.json", b"no JSON")
        self.converted(pth(tiny()))
        self.assertIn("not read       config.json beside the checkpoint: --config", self.report)

    def test_what_is_refused(self):
        deep = b'{"a":' + b"[" * 100000
        for config, reason in (
                ({"architecture": "resnetblur50", **self.TIMM["pretrained_cfg"]}, "of resnetblur50, which is not"),
                ({"architecture": "resnet50_gn.a1h", **self.TIMM["pretrained_cfg"]}, "of resnet50_gn"),
                ({"architecture": "ecaresnet50d", **self.TIMM["pretrained_cfg"]}, "of ecaresnet50d"),
                ({"architecture": "resnetv2_50", **self.TIMM["pretrained_cfg"]}, "of resnetv2_50"),
                ({**self.FACE, "model_type": "regnet"}, "the model type regnet"), ({}, "no config file of timm"),
                ({**self.FACE, "hidden_act": "gelu"}, "another activation"),
                ({**self.FACE, "id2label": {"1": "x"}}, "id2label"),
                ({**self.FACE, "downsample_in_first_stage": True}, "a stride in the first stage"),
                ({**self.FACE, "id2label": {"0": 1}}, "id2label"),
                ({**self.FACE, "id2label": {"0": "a"}}, "has 1 labels"),
                ({**self.FACE, "id2label": {"0": "a\n", "1": "b", "2": "c"}},
                 "line 1 is empty or has a control character"),
                ({**self.FACE, "id2label": {"0": "\ud800", "1": "b", "2": "c"}}, "line 1"),
                ({**self.PROCESSOR, "resample": 0}, "resample 0"), ({**self.PROCESSOR, "size": 0}, "size 0"),
                ({**self.PROCESSOR, "size": {"longest_edge": 3}}, "size's height None"),
                ({**self.PROCESSOR, "size": "a"}, "size a"),
                ({**self.PROCESSOR, "image_std": [1, 0, 1]}, "above 0"),
                ({**self.PROCESSOR, "image_mean": [1]}, "has 1 numbers"),
                ({**self.PROCESSOR, "image_mean": ["a"]}, "a number for each"),
                ({**self.PROCESSOR, "crop_pct": 2}, "crop_pct 2"),
                ({**self.PROCESSOR, "rescale_factor": 0}, "rescale_factor 0"),
                ({"input_size": [3, 1 << 40, 1], "crop_pct": 1}, "input_size 1099511627776"),
                ({"input_size": [224, 224], "crop_pct": 1}, "channels, height and width"),
                ({"input_size": [3, 9, 9], "crop_pct": 1, "crop_mode": "squash"}, "crop_mode squash"),
                ({"input_size": [3, 9, 9], "crop_pct": 1, "interpolation": "random"}, "interpolation random"),
                (deep, "no valid JSON"), (b"[]", "no JSON object"), (b'{"a": NaN}', "number NaN"),
                (b"\xff", "no valid JSON"),
                (b'{"crop_pct": 1e999}', "number 1e999")):
            path = self.path("bad.json", config if type(config) is bytes else json.dumps(config).encode())
            status, _, message = self.run_main(self.path("in", pth(tiny())), "-o", self.output, "--config", path)
            self.assertIn(reason, message)
            self.assertEqual(status, 2, message)
        self.assertEqual(self.run_main(self.path("in"), "-o", self.output, "--config", self.path("none"))[0], 4)


class Recognition(Case):
    def test_parameters_and_convolutions(self):
        """torchvision's counts, and timm's."""
        for name, convolutions, parameters in (
                ("resnet18", 20, 11689512), ("resnet34", 36, 21797672), ("resnet50", 53, 25557032),
                ("resnet101", 104, 44549160), ("resnet152", 155, 60192808), ("resnext50_32x4d", 53, 25028904),
                ("resnext101_32x8d", 104, 88791336), ("resnext101_64x4d", 104, 83455272),
                ("wide_resnet50_2", 53, 68883240), ("wide_resnet101_2", 104, 126886696), ("resnet50d", 55, 25576264),
                ("seresnet50", 53, 28088024)):
            preset = network.PRESETS[name]
            self.assertEqual(len(list(network.convolutions(preset))), convolutions, name)
            self.assertEqual(network.parameter_count(preset), parameters, name)
            self.assertEqual(preset.architecture, name)
        for depth, parameters in ((20, 269722), (110, 1727962), (1202, 19421274)):
            preset = dataclasses.replace(network.PRESETS[f"resnet{depth}"], classes=10)
            self.assertEqual((network.parameter_count(preset), preset.architecture), (parameters, f"resnet{depth}"))

    def test_arch(self):
        self.refused(pth(tiny()), "is resnet (basic blocks 1-1, width 4), not resnet50", "--arch", "resnet50")

    def test_missing_and_unexpected_tensors_are_named(self):
        arrays = tiny()
        for name in ("bn1.running_var", "layer2.0.downsample.0.weight", "fc.bias", "conv1.weight", "fc.weight"):
            self.refused(pth({key: value for key, value in arrays.items() if key != name}), name)
        for name in ("layer2.0.conv3.weight", "layer1.0.conv1.weight"):
            other = tiny(bottleneck=True)
            del other[name]
            self.refused(safetensors(other), name)
        extra = {f"extra{i}": np.zeros(1, "<f4") for i in range(5)}
        self.refused(safetensors({**arrays, **extra}), "5 unexpected: extra0, extra1, extra2 and 2 more")
        self.refused(pth({name: array for name, array in arrays.items() if not name.startswith("layer1")}),
                     "10 missing: layer1.0.conv1.weight, layer1.0.bn1.weight, layer1.0.bn1.bias and 7 more")

    def test_wrong_shapes_and_types_are_named(self):
        arrays = tiny()
        for name, array, reason in (
                ("bn1.weight", np.ones(5, "<f4"), "bn1.weight (float32 5, expected 4)"),
                ("layer1.0.conv1.weight", np.ones((4, 4, 1, 1), "<f4"), "4x4x1x1, expected 4x4x3x3"),
                ("conv1.weight", np.ones((4, 3), "<f4"), "conv1.weight has the shape 4x3"),
                ("conv1.weight", np.ones((0, 3, 7, 7), "<f4"), "conv1.weight has the shape 0x3x7x7"),
                ("fc.weight", np.ones((3, 9), "<f4"), "fc.weight (float32 3x9, expected 3x8)"),
                ("fc.bias", np.ones(3, "<i8"), "fc.bias (int64 3, expected 3)"),
                ("fc.bias", np.ones((), "<f4"), "fc.bias (float32 a single number, expected 3)"),
                ("bn1.weight", np.ones((4, 1), "<f4"), "bn1.weight (float32 4x1, expected 4)")):
            self.refused(pth({**arrays, name: array}), reason)
            self.refused(safetensors({**arrays, name: array}), reason)

    def test_numbers_that_no_network_has(self):
        arrays = tiny()
        for name, value, reason in (
                ("layer2.0.bn1.bias", np.nan, "layer2.0.bn1.bias holds numbers that are not finite"),
                ("fc.weight", -np.inf, "fc.weight holds numbers that are not finite"),
                ("bn1.running_var", -1e-30, "bn1.running_var holds a negative variance")):
            spoilt = arrays[name].copy()
            spoilt.flat[-1] = value
            self.refused(pth({**arrays, name: spoilt}), reason)
            self.refused(safetensors({**arrays, name: spoilt}), reason)
        for other in (np.full(3, 1e300), np.full(3, 0x7FF0000000000001).view("<f8"),  # the latter: signalling NaNs
                      np.full(3, 0x7C01, "<u2").view("<f2"), np.full(3, 0x7F81, "<u2")):
            self.refused(pth({**arrays, "fc.bias": other}), "fc.bias holds numbers that are not finite")

    def test_relatives_are_refused_by_name(self):
        arrays, one = tiny(bottleneck=True, inner=8), np.ones((8, 2, 3, 3), "<f4")
        for name, reason in (
                ("layer2.0.aa.filt", "anti-aliased pooling"), ("maxpool.1.filt", "anti-aliased pooling"),
                ("layer1.0.convs.0.weight", "Res2Net"), ("layer1.0.conv2.fc1.weight", "split attention (ResNeSt)"),
                ("layer1.0.conv2.bn0.weight", "split attention (ResNeSt)"),
                ("layer1.0.conv1.paths.0.x", "selective kernels"),
                ("layer1.0.se.conv.weight", "efficient channel attention (ECA)"),
                ("layer1.0.attn.x", "an attention other"),
                ("layer1.0.se_module.fc1.weight", "SENet's first code"), ("layer0.conv1.weight", "SENet's first code"),
                ("maxpool.0.weight", "in place of the stem's pool (ResNet-RS)"), ("regnet.x.y", "RegNet"),
                ("stages.0.blocks.0.norm1.weight", "pre-activation"), ("root.conv.weight", "pre-activation")):
            self.refused(pth({**arrays, name: one}), reason)
            if name.startswith(("layer1", "layer2", "maxpool")):
                self.refused(pth({**arrays, name: one}, prefix="module."), reason)
        group_norm = {name: array for name, array in arrays.items() if "running" not in name}
        self.refused(pth(group_norm), "group normalisation")
        before = {name: array for name, array in arrays.items() if not name.startswith("bn1.")}
        self.refused(pth(before), "pre-activation blocks")
        for shape in ((4, 12, 4, 4), (4, 48, 3, 3)):
            self.refused(pth({**arrays, "conv1.weight": np.ones(shape, "<f4")}), "a space-to-depth stem")

    def test_stems_that_do_not_fit(self):
        arrays = tiny(stem="deep", width=8)
        for name, shape in (("conv1.0.weight", (8, 3, 3, 3)), ("conv1.3.weight", (8, 4, 3, 3)),
                            ("conv1.6.weight", (12, 4, 3, 3))):
            self.refused(pth({**arrays, name: np.ones(shape, "<f4")}), "a deep stem of")
        self.refused(pth({**arrays, "conv1.3.weight": np.ones((4, 5, 3, 3), "<f4")}), "expected 4x4x3x3")

    def test_groups_that_do_not_fit(self):
        for inner, groups, channels in ((6, 2, 3), (12, 2, 6), (24, 2, 12), (4, 4, 1)):
            self.refused(pth(tiny(bottleneck=True, inner=inner, groups=groups)),
                         f"in groups of {channels} channels (layer1)")
        other = {**tiny(bottleneck=True, inner=10), "layer2.0.conv2.weight": np.ones((20, 3, 3, 3), "<f4")}
        self.refused(pth(other), "layer2.0.conv2.weight (float32 20x3x3x3, expected 20x20x3x3)")

    def test_attention_that_does_not_fit(self):
        arrays = tiny(attention=4, width=64, blocks=(1,))
        self.converted(pth(arrays))
        arrays["layer1.0.se.fc1.weight"] = np.ones((3, 64), "<f4")
        self.refused(pth(arrays), "squeezes 64 channels to 3")
        lacking = tiny(attention=8)
        del lacking["layer2.0.se.fc2.bias"]
        self.refused(pth(lacking), "1 missing: layer2.0.se.fc2.bias")

    def test_other_checkpoints(self):
        one = np.ones((1, 1), "<f4")
        self.refused(pth({"features.0.weight": one}),
                     "no ResNet with the names of torchvision, timm, Hugging Face or Keras; it begins with features.0")
        self.refused(safetensors({}), "begins with nothing")
        self.refused(pth({"conv1.weight": one}), "no ResNet")
        self.refused(pth({**tiny(), "layer1.1024.conv1.weight": one}), "more than the 1024")
        self.refused(pth({**tiny(), "layer1.1000000.conv1.weight": one}), "unexpected: layer1.1000000.conv1.weight")
        self.refused(safetensors({**tiny(), "bad\n\x1b[31m\ud800": one}), "bad\\n\\x1b[31m\\ud800")
        self.refused(pth(tiny(channels=17)), "17 in channels")

    def test_other_files(self):
        for data in (b"hello", b"\x80\x02}.", bytes(100)):
            self.refused(data, "not a checkpoint that is read: none of torch.save (.pth), safetensors, ONNX")
        self.refused(b"", "empty")


if __name__ == "__main__":
    unittest.main()
