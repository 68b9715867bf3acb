"""Static quantization of the CIFAR ResNets beside ONNX Runtime's own quantizer.

Run as  ADAPTKIT_DATA=… python benchmarks/quantization.py ; writes benchmarks/results/quantization.json.
Calibration: 512 training images for everybody. Accuracy: the whole test split. Latency: one
thread, the files take turns.
"""

import io
import json
import os
import statistics
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from machine import RESULTS, machine
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from PIL import Image
from safetensors.torch import load_file

from adaptkit.export.onnx import to_onnx
from adaptkit.quantization import StaticQuantization
from adaptkit.quantization.inspect import float_islands, saturation_risk
from adaptkit.technique import Context
from adaptkit_zoo.cifar_resnet import resnet20_cifar, resnet56_cifar

MODELS = {"resnet20": resnet20_cifar, "resnet56": resnet56_cifar}
MEAN, DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
ROUNDS = {1: 150, 64: 8}


def images(archive: Path, split: str, count: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Read normalized images and labels; `count` takes that many at random, always the same."""
    with zipfile.ZipFile(archive) as files:
        names = sorted(name for name in files.namelist() if f"/{split}/" in name and name.endswith(".jpg"))
        classes = sorted({name.split("/")[-2] for name in names})
        chosen = (
            names if count is None else [names[i] for i in np.random.RandomState(0).permutation(len(names))[:count]]
        )
        pixels = np.stack([np.asarray(Image.open(io.BytesIO(files.read(name))).convert("RGB")) for name in chosen])
    x = ((pixels / 255 - MEAN) / DEVIATION).transpose(0, 3, 1, 2).astype(np.float32)
    return x, np.array([classes.index(name.split("/")[-2]) for name in chosen])


class Reader(CalibrationDataReader):
    """Hands the calibration images to ONNX Runtime's quantizer."""

    def __init__(self, x: np.ndarray) -> None:
        self.rest = iter([{"input": x[i : i + 64]} for i in range(0, len(x), 64)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the next batch."""
        return next(self.rest, None)


def by_onnx_runtime(proto: onnx.ModelProto, x: np.ndarray, reduce_range: bool) -> onnx.ModelProto:
    """Quantize with onnxruntime.quantization: QDQ, per channel, u8 activations, s8 weights, min-max."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder, name)) for name in ("float.onnx", "prepared.onnx", "int8.onnx")]
        onnx.save(proto, paths[0])
        quant_pre_process(paths[0], paths[1])
        quantize_static(
            paths[1], paths[2], Reader(x), quant_format=QuantFormat.QDQ, per_channel=True, reduce_range=reduce_range,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        )  # fmt: skip
        return onnx.load(paths[2])


def by_adaptkit(model: torch.nn.Module, x: np.ndarray, **settings: object) -> onnx.ModelProto:
    """Quantize with adaptkit."""
    tensor = torch.from_numpy(x)
    context = Context(example_inputs=(tensor[:1],), calibration=(tensor, torch.zeros(len(x))))
    quantized = StaticQuantization(**settings).apply(model, context)
    return quantized.finish_onnx(to_onnx(quantized.export_model(), (tensor[:1],)))


def session(proto: onnx.ModelProto) -> ort.InferenceSession:
    """Open a model on one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


def accuracy(proto: onnx.ModelProto, x: np.ndarray, y: np.ndarray) -> float:
    """Top-1 accuracy of a file."""
    opened = session(proto)
    hits = [opened.run(None, {"input": x[i : i + 500]})[0].argmax(1) == y[i : i + 500] for i in range(0, len(x), 500)]
    return float(np.concatenate(hits).mean())


def speedups(protos: dict[str, onnx.ModelProto], x: np.ndarray, batch: int) -> dict[str, dict[str, float]]:
    """Time the files in turns; a speedup is the median over rounds of float32 time by own time of the same round."""
    opened = {name: session(proto) for name, proto in protos.items()}
    times: dict[str, list[float]] = {name: [] for name in opened}
    for turn in range(ROUNDS[batch] + 3):
        for name, one in opened.items():
            start = time.perf_counter()
            one.run(None, {"input": x[:batch]})
            if turn >= 3:
                times[name].append(time.perf_counter() - start)
    result = {}
    for name, own in times.items():
        ratios = sorted(base / mine for base, mine in zip(times["float32"], own, strict=True))
        low, high = ratios[len(ratios) // 10], ratios[-1 - len(ratios) // 10]
        result[name] = {"median": statistics.median(ratios), "p10": low, "p90": high}
    return result


def compare(name: str, folder: Path, x_fit: np.ndarray, test: tuple[np.ndarray, np.ndarray]) -> dict[str, object]:
    """Quantize one model in every way, and measure."""

    def fresh() -> torch.nn.Module:
        model = MODELS[name]().eval()
        model.load_state_dict(load_file(folder / "weights" / f"{name}-cifar10-jpeg.safetensors"))
        return model

    plain = to_onnx(fresh(), (torch.from_numpy(x_fit[:1]),))
    protos = {
        "float32": plain,
        "onnxruntime 8 bits": by_onnx_runtime(plain, x_fit, reduce_range=False),
        "onnxruntime 7 bits": by_onnx_runtime(plain, x_fit, reduce_range=True),
        "adaptkit auto": by_adaptkit(fresh(), x_fit),
        "adaptkit 7 bits": by_adaptkit(fresh(), x_fit, weight_bits=7),
        "adaptkit 8 bits": by_adaptkit(fresh(), x_fit, weight_bits=8),
    }
    speed = {batch: speedups(protos, test[0], batch) for batch in ROUNDS}
    return {
        kind: {
            "accuracy": accuracy(proto, *test),
            "bytes": proto.ByteSize(),
            "speedup": {f"b{batch}": speed[batch][kind] for batch in ROUNDS},
            "float_islands": len(float_islands(proto)),
            "layers_that_can_saturate": len(saturation_risk(proto)),
        }
        for kind, proto in protos.items()
    }


def main() -> None:
    """Compare both models and write the result."""
    folder = Path(os.environ["ADAPTKIT_DATA"])
    archive = folder / "data" / "cifar10-jpeg.zip"
    x_fit, _ = images(archive, "train", 512)
    test = images(archive, "test")
    result = {
        "machine": machine(),
        "threads": 1,
        "models": {name: compare(name, folder, x_fit, test) for name in MODELS},
    }
    path = RESULTS / "quantization.json"
    path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
