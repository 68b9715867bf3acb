"""ResNet-20 and ResNet-56 for CIFAR-10, float and in integers, and what they answer to the test images."""

import os
from pathlib import Path

import numpy as np
import onnx
import torch
from quantization import MODELS, by_adaptkit, choices, images, session
from safetensors.torch import load_file

from adaptkit.conditional.members import Said
from adaptkit.export.onnx import final_onnx


def answers(work: Path, names: list[str]) -> tuple[list[Path], Said]:
    """Give the files of networks, and what they say to all test images.

    Args:
        work: Keeps files and answers, for whoever asks next.
        names: Such as resnet20 or resnet20_int8; the drop in accuracy is counted against resnet56.
    """
    folder = Path(os.environ["ADAPTKIT_DATA"])
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "test.npz").is_file():
        x, y = images(folder / "data" / "cifar10-jpeg.zip", "test")
        np.savez(work / "test.npz", x=x, y=y)
    test = np.load(work / "test.npz")
    if not (work / "logits.npz").is_file():
        np.savez(work / "logits.npz", **_make(work, folder, test["x"], test["y"]))
    logits = np.load(work / "logits.npz")
    original = logits["resnet56"].argmax(1) == test["y"]
    said = Said(test["x"], np.stack([logits[name] for name in names]), test["y"], original)
    return [work / f"{name}.onnx" for name in names], said


def _make(work: Path, folder: Path, x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    fit, _ = images(folder / "data" / "cifar10-jpeg.zip", "train", 512)
    found = {}
    for name in ("resnet20", "resnet56"):
        build, weights = MODELS[name]
        model = build().eval()
        model.load_state_dict(load_file(folder / "weights" / f"{weights}.safetensors"))
        protos = {name: final_onnx(model, (torch.from_numpy(x[:1]),))}
        protos[f"{name}_int8"] = by_adaptkit(model, fit, rounding="nearest")
        for kind, proto in protos.items():
            onnx.save(proto, work / f"{kind}.onnx")
            opened = session(proto)
            found[kind] = np.concatenate(
                [opened.run(None, {"input": x[i : i + 250]})[0] for i in range(0, len(x), 250)]
            )
            print(kind, float((choices(proto, x[:1000]) == y[:1000]).mean()))
    return found
