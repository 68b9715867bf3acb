"""ONNX Runtime's own static quantizer, as benchmarks use it."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

Array = np.ndarray[Any, Any]


class Reader(CalibrationDataReader):  # type: ignore[misc]
    """Hands the calibration images to ONNX Runtime's quantizer, which needs batches of one size for percentiles."""

    def __init__(self, x: Array) -> None:
        size = max(size for size in range(1, 65) if len(x) % size == 0)
        self.rest = iter([{"input": x[i : i + size]} for i in range(0, len(x), size)])

    def get_next(self) -> dict[str, Array] | None:
        """Return the next batch."""
        return next(self.rest, None)


def by_onnx_runtime(proto: onnx.ModelProto, x: Array, ranges: str, reduce_range: bool = False) -> onnx.ModelProto:
    """Quantize with onnxruntime.quantization: QDQ, per channel, u8 activations, s8 weights."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder, name)) for name in ("float.onnx", "prepared.onnx", "int8.onnx")]
        onnx.save(proto, paths[0])
        quant_pre_process(paths[0], paths[1])
        quantize_static(
            paths[1], paths[2], Reader(x), quant_format=QuantFormat.QDQ, per_channel=True, reduce_range=reduce_range,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, calibrate_method=CalibrationMethod[ranges],
        )  # fmt: skip
        return onnx.load(paths[2])
