"""Makes `goldens/`: a small EfficientNet-Lite0 in PyTorch, its weights and its features.

    pip install torch && python tests/pretraining/make_goldens.py

The network is written here with PyTorch's own layers, 16 blocks as in EfficientNet-Lite0, but a few
channels wide. The weights are saved in the format that the published ones have.
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

#: (expansion, kernel, stride, output channels) of each block.
BLOCKS = (
    [(1, 3, 1, 4), (6, 3, 2, 4), (6, 3, 1, 4), (6, 5, 2, 6), (6, 5, 1, 6), (6, 3, 2, 6)]
    + [(6, 3, 1, 6)] * 2
    + [(6, 5, 1, 8)] * 3
    + [(6, 5, 2, 8)]
    + [(6, 5, 1, 8)] * 3
    + [(6, 3, 1, 10)]
)
RESOLUTION = 48


class SameConv(nn.Conv2d):
    """A convolution with TensorFlow's SAME padding."""

    def forward(self, x):
        pads = []
        for size in (x.shape[3], x.shape[2]):
            kernel, stride = self.kernel_size[0], self.stride[0]
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [total // 2, total - total // 2]
        return super().forward(functional.pad(x, pads))


def norm(channels):
    return nn.BatchNorm2d(channels, eps=1e-3)


class Block(nn.Module):
    def __init__(self, inputs, expansion, kernel, stride, outputs):
        super().__init__()
        width = inputs * expansion
        if expansion > 1:
            self._expand_conv, self._bn0 = SameConv(inputs, width, 1, bias=False), norm(width)
        self._depthwise_conv = SameConv(width, width, kernel, stride, groups=width, bias=False)
        self._bn1 = norm(width)
        self._project_conv, self._bn2 = SameConv(width, outputs, 1, bias=False), norm(outputs)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x):
        inputs = x
        if hasattr(self, "_expand_conv"):
            x = functional.relu6(self._bn0(self._expand_conv(x)))
        x = functional.relu6(self._bn1(self._depthwise_conv(x)))
        x = self._bn2(self._project_conv(x))
        return x + inputs if self.residual else x


class Lite(nn.Module):
    def __init__(self):
        super().__init__()
        self._conv_stem, self._bn0 = SameConv(3, 4, 3, 2, bias=False), norm(4)
        inputs, blocks = 4, []
        for expansion, kernel, stride, outputs in BLOCKS:
            blocks.append(Block(inputs, expansion, kernel, stride, outputs))
            inputs = outputs
        self._blocks = nn.ModuleList(blocks)
        self._conv_head, self._bn1 = SameConv(inputs, 12, 1, bias=False), norm(12)

    def forward(self, x):
        x = functional.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        return functional.relu6(self._bn1(self._conv_head(x))).mean((2, 3))


def main():
    torch.manual_seed(0)
    model = Lite().eval()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.8, 1.6)
            nn.init.normal_(layer.bias, 0.0, 0.3)
            nn.init.normal_(layer.running_mean, 0.0, 0.1)
            nn.init.uniform_(layer.running_var, 0.05, 0.3)
    images = np.random.default_rng(0).integers(0, 256, (2, 24, 24, 3)).astype(np.uint8)
    pixels = torch.tensor(images, dtype=torch.float32).permute(0, 3, 1, 2)
    size = (RESOLUTION, RESOLUTION)
    resized = functional.interpolate(pixels, size, mode="bilinear", align_corners=False)
    with torch.no_grad():
        features = model((resized - 127) / 128).numpy()
    directory = Path(__file__).parent / "goldens"
    directory.mkdir(exist_ok=True)
    path = directory / "lite.pth"
    torch.save(model.state_dict(), path, _use_new_zipfile_serialization=False)
    np.savez(directory / "lite.npz", images=images, features=features)


if __name__ == "__main__":
    main()
