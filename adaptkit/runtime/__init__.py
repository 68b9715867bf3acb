"""Runs an exported model on ONNX Runtime."""
