"""NNCF's post-training quantization of one ONNX file; runs in an environment of its own.

    PEER/bin/python benchmarks/peer_nncf.py FLOAT.onnx CALIBRATION.npy INT8.onnx [--safe]

NNCF's own settings; with --safe all weights are kept within what CPUs without VNNI do not saturate on (its
`overflow_fix`). Its slower bias correction ends in an error on these files (version 3.4.0). The last line that is
printed is the processor time of the quantization itself.
"""

import argparse
import time

import nncf
import numpy as np
import onnx
from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix

parser = argparse.ArgumentParser()
parser.add_argument("model")
parser.add_argument("samples")
parser.add_argument("output")
parser.add_argument("--safe", action="store_true")
chosen = parser.parse_args()

model, samples = onnx.load(chosen.model), np.load(chosen.samples)
name = model.graph.input[0].name
dataset = nncf.Dataset([sample[None] for sample in samples], lambda sample: {name: sample})
fix = OverflowFix.ENABLE if chosen.safe else OverflowFix.DISABLE
started = time.process_time()
quantized = nncf.quantize(
    model,
    dataset,
    subset_size=len(samples),
    advanced_parameters=AdvancedQuantizationParameters(overflow_fix=fix),
)
print(time.process_time() - started)
onnx.save(quantized, chosen.output)
