"""Small networks and the steps every test of quantization takes."""

import numpy as np
import onnx
import onnxruntime as ort
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adaptkit.export.onnx import final_onnx
from adaptkit.quantization import StaticQuantization
from adaptkit.technique import Context


class Residual(nn.Module):
    """Convolutions, depthwise too, ReLU6, a padded strided shortcut, a concatenation, pooling and a linear layer."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8)
        self.grow = nn.Conv2d(8, 16, 1, bias=False)
        self.grow_norm = nn.BatchNorm2d(16)
        self.left, self.right = nn.Conv2d(16, 8, 1), nn.Conv2d(16, 8, 3, padding=1)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)))
        short = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))
        x = F.relu6(self.depthwise(x))
        x = F.relu(self.grow_norm(self.grow(x)) + short)
        x = F.max_pool2d(torch.cat([F.relu(self.left(x)), F.relu(self.right(x))], 1), 2)
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


def settled(model: nn.Module, *shape: int) -> nn.Module:
    """Give the normalizations statistics that fit, as training would, and shifts and scales that are not 0 and 1."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.momentum = None
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.3, 0.3)
    model.train()
    with torch.no_grad():
        model(torch.randn(16, *shape))
    return model.eval()


def quantize(model: nn.Module, x: Tensor, **settings):
    context = Context(example_inputs=(x[:1],), calibration=(x, torch.zeros(len(x), dtype=torch.long)))
    return StaticQuantization(calibration=len(x), **settings).apply(model, context)


def exported(quantized: nn.Module, x: Tensor) -> onnx.ModelProto:
    return final_onnx(quantized, (x[:1],))


def run(proto: onnx.ModelProto, x: Tensor, optimize: bool = True) -> np.ndarray:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"input": x.numpy()})[0]
