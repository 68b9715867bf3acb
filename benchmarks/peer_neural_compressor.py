"""Neural Compressor's post-training quantization of one ONNX file; runs in an environment of its own.

    PEER/bin/python benchmarks/peer_neural_compressor.py FLOAT.onnx CALIBRATION.npy INT8.onnx

Its half for ONNX is the package onnx-neural-compressor, which imports prettytable and scipy without requiring them. The
last line that is printed is the processor time of the quantization itself.
"""

import argparse
import time

import numpy as np
import onnx
from onnx_neural_compressor import data_reader
from onnx_neural_compressor.quantization import config, quantize
from onnxruntime.quantization import QuantFormat

parser = argparse.ArgumentParser()
parser.add_argument("model")
parser.add_argument("samples")
parser.add_argument("output")
chosen = parser.parse_args()

samples = np.load(chosen.samples)
name = onnx.load(chosen.model).graph.input[0].name


class Reader(data_reader.CalibrationDataReader):
    """Hands the calibration images over, one by one, and again from the start."""

    def __init__(self) -> None:
        self.rewind()

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the next image."""
        return next(self.rest, None)

    def rewind(self) -> None:
        """Start again."""
        self.rest = iter([{name: sample[None]} for sample in samples])


started = time.process_time()
settings = config.StaticQuantConfig(
    calibration_data_reader=Reader(),
    quant_format=QuantFormat.QDQ,
    per_channel=True,
    calibration_sampling_size=len(samples),
)
quantize(chosen.model, chosen.output, settings)
print(time.process_time() - started)
