"""Export to ONNX, and the certificate that the file computes what the model computes."""
