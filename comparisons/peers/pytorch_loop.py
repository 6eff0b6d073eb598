"""FedAvg as a plain Python loop over clients, in PyTorch.

    DIR/bin/python comparisons/peers/pytorch_loop.py --data=cifar10.npz --task=pfl_cifar10
    DIR/bin/python comparisons/peers/pytorch_loop.py --data=cifar10.npz --task=family_cifar10

What a researcher writes without a framework: every client starts from the server's weights with a
fresh optimiser, trains one epoch and is added to the average, which replaces the server's weights.
All threads work on one client. --memory_format is the layout of images and weights; which one is
faster depends on processor and network. --dtype=bfloat16 is PyTorch's autocast.
Prints one line of JSON.
"""

import cifar10
import numpy as np
import torch
import torch.nn.functional as F
from measure import Stopwatch, device, parse_arguments, report
from models import ResNet10, accuracy, count_parameters, pfl_cnn


def crop_and_flip(images, generator):
    """Random 4-pixel shift (zero padding) and horizontal flip of uint8 images [B, C, H, W]."""
    batch, channels, height, width = images.shape
    padded = F.pad(images, (4, 4, 4, 4))
    top, left = torch.randint(0, 9, (2, batch, 1), generator=generator)
    rows = top + torch.arange(height)
    columns = left + torch.arange(width)
    flip = torch.rand(batch, 1, generator=generator) < 0.5
    columns = torch.where(flip, columns.flip(1), columns)
    rows, columns = rows.to(images.device), columns.to(images.device)
    sample = torch.arange(batch, device=images.device)[:, None, None, None]
    channel = torch.arange(channels, device=images.device)[None, :, None, None]
    return padded[sample, channel, rows[:, None, :, None], columns[:, None, None, :]]


class Client:
    """Local training by a task's rules."""

    def __init__(self, task, data, generator, memory_format, dtype):
        self.task = task
        self.cast = torch.autocast(device().type, torch.bfloat16, enabled=dtype == "bfloat16")
        self.memory_format = memory_format
        self.generator = generator
        self.mean, self.std = (torch.from_numpy(x).to(device()) for x in (data.mean, data.std))

    def batches(self, images, labels):
        """One epoch; the last partial batch is kept."""
        size = self.task.batch_size
        if not self.task.augment:
            yield from zip(images.split(size), labels.split(size), strict=True)
            return
        for index in torch.randperm(len(images), generator=self.generator).split(size):
            index = index.to(images.device)
            batch = crop_and_flip(images[index], self.generator).float()
            yield (batch - self.mean) / self.std, labels[index]

    def train(self, model, images, labels):
        """One local epoch of SGD, in place."""
        model.train()
        optimizer = torch.optim.SGD(
            model.parameters(),
            lr=self.task.learning_rate,
            momentum=self.task.momentum,
            weight_decay=self.task.weight_decay,
        )
        for batch, batch_labels in self.batches(images, labels):
            batch = batch.contiguous(memory_format=self.memory_format)
            with self.cast:
                loss = F.cross_entropy(model(batch), batch_labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()


def run_round(model, client, cohort):
    """Trains every client from the same weights, then loads their average into `model`."""
    start = {name: value.clone() for name, value in model.state_dict().items()}
    total = {name: torch.zeros_like(value) for name, value in start.items()}
    for images, labels in cohort:
        model.load_state_dict(start)
        client.train(model, images, labels)
        for name, value in model.state_dict().items():
            if value.is_floating_point():  # not the counters of batch normalisation
                total[name].add_(value, alpha=1 / len(cohort))
    model.load_state_dict(total)


def main():
    args = parse_arguments(__doc__, tasks=("pfl_cifar10", "family_cifar10"))
    task, data = args.of_task, cifar10.load(args.data, args.task)
    model = (pfl_cnn() if args.task == "pfl_cifar10" else ResNet10(args.width)).to(device())
    memory_format = getattr(torch, args.memory_format)
    model = model.to(memory_format=memory_format)
    generator = torch.Generator().manual_seed(args.seed)
    client = Client(task, data, generator, memory_format, args.dtype)
    # Images that are not augmented are normalised once.
    images = data.train_images if task.augment else data.normalize(data.train_images)
    images, labels, test_images, test_labels = (
        torch.from_numpy(x).to(device())
        for x in (images, data.train_labels, data.normalize(data.test_images), data.test_labels)
    )
    users = [(images[rows], labels[rows]) for rows in torch.from_numpy(data.users).long()]
    rng = np.random.default_rng(args.seed)
    stopwatch = Stopwatch()
    last = args.warmup_rounds + args.rounds
    for number in range(1, last + 1):
        cohort = rng.choice(task.users, task.cohort, replace=False)
        stopwatch.restart()
        run_round(model, client, [users[user] for user in cohort])
        stopwatch.lap("round")
        if number % task.eval_every == 0 or number == last:
            share = accuracy(model, test_images, test_labels)
            stopwatch.lap("evaluation")
    report(args, stopwatch, share, count_parameters(model))


if __name__ == "__main__":
    main()
