"""Yardstick: the clients' ResNet-10 trained in PyTorch, one client after another.

    python benchmarks/pytorch_clients.py --width 16 --clients 4 --samples_per_client 640 --rounds 5

Every round, each client starts from the server's weights with a fresh momentum buffer, trains one
local epoch (SGD, random crop and flip) and is added to the weighted average, which replaces the
server's weights: what FedAvg costs when written as a plain Python loop. The images are random
uint8: speed does not depend on their content, and nothing has to be downloaded. Needs torch and
numpy only, neither torchvision nor this project.

Prints one JSON object; `images_per_second` is the median over the rounds after `--warmup_rounds`.
"""

import argparse
import json
import platform
import statistics
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

CIFAR10_MEAN = (125.3, 123.0, 113.9)
CIFAR10_STD = (63.0, 62.1, 66.7)


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

    def __init__(self, width, num_classes):
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
        """Maps [B, 3, H, W] to logits [B, num_classes]."""
        x = self.blocks(F.relu(self.stem_norm(self.stem(x))))
        return self.classifier(x.mean((2, 3)))


def crop_and_flip(images, generator):
    """Random 4-pixel shift (zero padding) and horizontal flip of uint8 images [B, 3, H, W]."""
    batch, channels, height, width = images.shape
    padded = F.pad(images, (4, 4, 4, 4))
    top, left = torch.randint(0, 9, (2, batch, 1), generator=generator)
    rows = top + torch.arange(height)
    columns = left + torch.arange(width)
    flip = torch.rand(batch, 1, generator=generator) < 0.5
    columns = torch.where(flip, columns.flip(1), columns)
    sample = torch.arange(batch)[:, None, None, None]
    channel = torch.arange(channels)[None, :, None, None]
    return padded[sample, channel, rows[:, None, :, None], columns[:, None, None, :]]


def train_client(model, images, labels, batch_size, learning_rate, generator):
    """One local epoch; the last partial batch is kept."""
    optimizer = torch.optim.SGD(
        model.parameters(), lr=learning_rate, momentum=0.9, weight_decay=1e-5
    )
    mean = torch.tensor(CIFAR10_MEAN).view(1, 3, 1, 1)
    std = torch.tensor(CIFAR10_STD).view(1, 3, 1, 1)
    for index in torch.randperm(len(images), generator=generator).split(batch_size):
        batch = (crop_and_flip(images[index], generator).float() - mean) / std
        loss = F.cross_entropy(model(batch), labels[index])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()


def run_round(model, clients, batch_size, learning_rate, generator):
    """Trains every client from the same weights, then loads their average into `model`."""
    start = {name: value.clone() for name, value in model.state_dict().items()}
    total = {name: torch.zeros_like(value) for name, value in start.items()}
    weight = 1 / len(clients)
    for images, labels in clients:
        model.load_state_dict(start)
        train_client(model, images, labels, batch_size, learning_rate, generator)
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                total[name].add_(value, alpha=weight)
    model.load_state_dict(total)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--num_classes", type=int, default=10)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--samples_per_client", type=int, default=640)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--warmup_rounds", type=int, default=1)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--learning_rate", type=float, default=0.01)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    generator = torch.Generator().manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    shape = (args.samples_per_client, 3, 32, 32)
    clients = [
        (
            torch.from_numpy(rng.integers(0, 256, shape, dtype=np.uint8)),
            torch.from_numpy(rng.integers(0, args.num_classes, args.samples_per_client)),
        )
        for _ in range(args.clients)
    ]
    model = ResNet10(args.width, args.num_classes).train()
    seconds = []
    for _ in range(args.warmup_rounds + args.rounds):
        begin = time.perf_counter()
        run_round(model, clients, args.batch_size, args.learning_rate, generator)
        seconds.append(time.perf_counter() - begin)
    images = args.clients * args.samples_per_client
    rates = [images / second for second in seconds[args.warmup_rounds :]]
    result = {
        "images_per_second": statistics.median(rates),
        "images_per_second_rounds": rates,
        "parameters": sum(value.numel() for value in model.parameters()),
        **vars(args),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
