"""Static quantization of CIFAR networks beside the quantizers of ONNX Runtime, NNCF and Neural Compressor.

    ADAPTKIT_DATA=… NNCF_PYTHON=PEER/bin/python python benchmarks/quantization.py resnet20 resnet56 mobilenet_v2

Adds to benchmarks/results/quantization.json. Calibration: 512 training images for everybody. Accuracy: the whole test
split. Latency: one thread, the files take turns. NNCF and Neural Compressor stand in environments of their own, which
`python -m benchmarks run quantization --peers-env DIR` makes, and are left out where NNCF_PYTHON or INC_PYTHON is not
set. The weights of MobileNetV2 are made by benchmarks/train.py; `digits` is the network of the package on its own data
and needs no folder.
"""

import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from machine import RESULTS, machine
from onnxruntime.capi.onnxruntime_pybind11_state import Fail
from peer_onnxruntime import by_onnx_runtime
from PIL import Image
from safetensors.torch import load_file

from adaptkit.export.onnx import final_onnx, to_onnx
from adaptkit.loading.data import load_data
from adaptkit.loading.models import load_model
from adaptkit.quantization import StaticQuantization
from adaptkit.quantization.inspect import float_islands, saturation_risk
from adaptkit.specs import DataSpec, ModelSpec
from adaptkit.technique import Context
from adaptkit_zoo.cifar_mobilenet import mobilenet_v2_cifar
from adaptkit_zoo.cifar_resnet import resnet20_cifar, resnet56_cifar

MODELS: dict[str, tuple[Callable[[], torch.nn.Module], str]] = {
    "resnet20": (resnet20_cifar, "resnet20-cifar10-jpeg"),
    "resnet56": (resnet56_cifar, "resnet56-cifar10-jpeg"),
    "mobilenet_v2": (mobilenet_v2_cifar, "mobilenet_v2_cifar"),
}
DIGITS = "digits"
PEERS = {"NNCF_PYTHON": "peer_nncf.py", "INC_PYTHON": "peer_neural_compressor.py"}
MEAN, DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
ROUNDS = {1: 400, 64: 12}


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


class Apart:
    """A peer in an environment of its own.

    Args:
        variable: Of the environment, with its interpreter; see `PEERS`.
        options: Of the peer's script.
    """

    def __init__(self, variable: str, *options: str) -> None:
        self.variable, self.options, self.seconds = variable, options, float("nan")

    def __call__(self, proto: onnx.ModelProto, x: np.ndarray) -> onnx.ModelProto:
        """Quantize; keeps the time that the peer itself took, without the start of its process."""
        with tempfile.TemporaryDirectory() as folder:
            onnx.save(proto, Path(folder, "float.onnx"))
            np.save(Path(folder, "samples.npy"), x)
            command = [os.environ[self.variable], str(Path(__file__).with_name(PEERS[self.variable]))]
            files = [str(Path(folder, name)) for name in ("float.onnx", "samples.npy", "int8.onnx")]
            done = subprocess.run([*command, *files, *self.options], check=True, stdout=subprocess.PIPE, text=True)
            self.seconds = float(done.stdout.split()[-1])
            return onnx.load(Path(folder, "int8.onnx"))


def by_adaptkit(model: torch.nn.Module, x: np.ndarray, **settings: object) -> onnx.ModelProto:
    """Quantize with adaptkit."""
    tensor = torch.from_numpy(x)
    context = Context(example_inputs=(tensor[:1],), calibration=(tensor, torch.zeros(len(x))))
    quantized = StaticQuantization(**settings).apply(model, context)
    return final_onnx(quantized, (tensor[:1],))


def ends(model: torch.nn.Module) -> tuple[str, str]:
    """Name the first and the last layer."""
    layers = [name for name, module in model.named_modules() if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear))]
    return layers[0], layers[-1]


def session(proto: onnx.ModelProto) -> ort.InferenceSession:
    """Open a model on one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


def choices(proto: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    """Return the class a file gives to every image."""
    opened = session(proto)
    return np.concatenate([opened.run(None, {"input": x[i : i + 500]})[0].argmax(1) for i in range(0, len(x), 500)])


def refusal(proto: onnx.ModelProto, x: np.ndarray) -> str:
    """Say why ONNX Runtime does not run a file, '' where it does; a peer may write such a file."""
    try:
        choices(proto, x)
    except Fail as error:
        return str(error)
    return ""


def quality(chosen: np.ndarray, exact: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Compare classes with the truth, and with what the float32 file chose; the standard error is that of the pairs."""
    lost = (exact == y).astype(float) - (chosen == y)
    return {
        "accuracy": float((chosen == y).mean()),
        "agreement": float((chosen == exact).mean()),
        "lost": float(lost.mean()),
        "standard_error": float(lost.std(ddof=1) / np.sqrt(len(y))),
    }


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


def compare(
    name: str, folder: Path | None, x_fit: np.ndarray, test: tuple[np.ndarray, np.ndarray]
) -> dict[str, object]:
    """Quantize one model in every way, and measure."""

    def fresh() -> torch.nn.Module:
        if name == DIGITS:
            return load_model(ModelSpec(zoo="resnet_digits"))
        build, weights = MODELS[name]
        assert folder is not None
        model = build().eval()
        model.load_state_dict(load_file(folder / "weights" / f"{weights}.safetensors"))
        return model

    plain = to_onnx(fresh(), (torch.from_numpy(x_fit[:1]),))
    ways: dict[str, Callable[[], onnx.ModelProto]] = {
        "float32": lambda: plain,
        "onnxruntime 8 bits": lambda: by_onnx_runtime(plain, x_fit, "MinMax"),
        "onnxruntime 8 bits, percentile": lambda: by_onnx_runtime(plain, x_fit, "Percentile"),
        "onnxruntime 7 bits": lambda: by_onnx_runtime(plain, x_fit, "MinMax", reduce_range=True),
        "adaptkit auto": lambda: by_adaptkit(fresh(), x_fit),
        "adaptkit auto, learned rounding": lambda: by_adaptkit(fresh(), x_fit, rounding="learned"),
        "adaptkit 8 bits, learned rounding": lambda: by_adaptkit(fresh(), x_fit, weight_bits=8, rounding="learned"),
        "adaptkit auto, learned rounding, ends float": lambda: by_adaptkit(
            fresh(), x_fit, rounding="learned", ignore=ends(fresh())
        ),
        "adaptkit 7 bits, learned rounding": lambda: by_adaptkit(fresh(), x_fit, weight_bits=7, rounding="learned"),
    }
    apart = {
        "nncf 8 bits": Apart("NNCF_PYTHON"),
        "nncf 7 bits": Apart("NNCF_PYTHON", "--safe"),
        "neural-compressor 8 bits": Apart("INC_PYTHON"),
    }
    there = {way: peer for way, peer in apart.items() if peer.variable in os.environ}
    ways |= {way: lambda peer=peer: peer(plain, x_fit) for way, peer in there.items()}
    protos, seconds, refused = {}, {}, {}
    for way, quantize in ways.items():
        started = time.process_time()
        protos[way] = quantize()
        spent = there[way].seconds if way in there else time.process_time() - started
        seconds[way] = round(spent, 1)
        if reason := refusal(protos[way], test[0][:1]):
            refused[way] = {"refused": reason}
            del protos[way]
    speed = {batch: speedups(protos, test[0], batch) for batch in ROUNDS}
    chosen = {way: choices(proto, test[0]) for way, proto in protos.items()}
    found = {
        kind: {
            **quality(chosen[kind], chosen["float32"], test[1]),
            "bytes": proto.ByteSize(),
            "cpu_seconds": seconds[kind],
            "speedup": {f"b{batch}": speed[batch][kind] for batch in ROUNDS},
            "float_islands": len(float_islands(proto)),
            "layers_that_can_saturate": len(saturation_risk(proto)),
        }
        for kind, proto in protos.items()
    }
    return {**found, **refused}


def digits() -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Give calibration images, and the test split."""
    data = load_data(DataSpec(digits=True, validation=150, calibration=200, batch_size=500), seed=0)
    fit, test = next(iter(data.calibration)), next(iter(data.test))
    return fit[0].numpy(), (test[0].numpy(), test[1].numpy())


def photographs(folder: Path) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Give calibration images of CIFAR-10, and the test split."""
    archive = folder / "data" / "cifar10-jpeg.zip"
    return images(archive, "train", 512)[0], images(archive, "test")


def main() -> None:
    """Compare the models named on the command line; results of others stay."""
    names = sys.argv[1:] or list(MODELS)
    folder = None if names == [DIGITS] else Path(os.environ["ADAPTKIT_DATA"])
    x_fit, test = digits() if folder is None else photographs(folder)
    path = RESULTS / "quantization.json"
    result = json.loads(path.read_text()) if path.is_file() else {}
    for name in names:
        result[name] = {"ways": compare(name, folder, x_fit, test), "machine": machine()}
        path.write_text(json.dumps(result, indent=1) + "\n")
        for way, found in result[name]["ways"].items():
            print(
                name,
                way,
                found["accuracy"],
                found["agreement"],
                {batch: ratio["median"] for batch, ratio in found["speedup"].items()},
            )


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
