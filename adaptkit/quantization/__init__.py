"""Quantization: one plan of scales, one simulator, one inserter."""
