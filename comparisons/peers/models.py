"""The networks of the two tasks in PyTorch."""

import torch
import torch.nn.functional as F
from torch import nn


def pfl_cnn():
    """The CNN of pfl-research's CIFAR-10 benchmark: images [B, 3, 32, 32] to logits [B, 10].

    Weights start as Glorot uniform; biases as PyTorch's default, uniform within
    1 / sqrt(inputs of a unit).
    """
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(0.25),
        nn.Flatten(),
        nn.Linear(14 * 14 * 64, 128),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(128, 10),
    )
    for layer in model:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
    parameters = count_parameters(model)
    if parameters != 1_626_442:
        raise AssertionError(f"pfl-research's CNN has 1,626,442 parameters, not {parameters:,}")
    return model


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, projected where the shape changes."""

    def __init__(self, channels_in, channels, stride):
        super().__init__()
        self.conv_1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.norm_1 = nn.BatchNorm2d(channels)
        self.conv_2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.norm_2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Identity()
        if stride != 1 or channels_in != channels:
            projection = nn.Conv2d(channels_in, channels, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(channels))

    def forward(self, x):
        """Maps [B, C_in, H, W] to [B, C, H / stride, W / stride]."""
        y = F.relu(self.norm_1(self.conv_1(x)))
        return F.relu(self.norm_2(self.conv_2(y)) + self.shortcut(x))


class ResNet10(nn.Module):
    """The network of semanticfl_jax/models/resnet.py, with batch normalisation."""

    def __init__(self, width, num_classes=10):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.stem_norm = nn.BatchNorm2d(width)
        widths = [width * 2**stage for stage in range(4)]
        inputs = [width, *widths]
        self.blocks = nn.Sequential(
            *(BasicBlock(inputs[i], widths[i], 1 if i == 0 else 2) for i in range(4))
        )
        self.classifier = nn.Linear(widths[-1], num_classes)

    def forward(self, x):
        """Maps images [B, 3, 32, 32] to logits [B, num_classes]."""
        x = self.blocks(F.relu(self.stem_norm(self.stem(x))))
        return self.classifier(x.mean((2, 3)))


def count_parameters(model):
    """Number of trained values."""
    return sum(value.numel() for value in model.parameters())


@torch.no_grad()
def accuracy(model, images, labels, batch_size=1000):
    """Share of images [n, 3, 32, 32] classified right, with dropout and batch statistics off."""
    model.eval()
    batches = zip(images.split(batch_size), labels.split(batch_size), strict=True)
    right = sum(int((model(x).argmax(1) == y).sum()) for x, y in batches)
    return right / len(labels)
