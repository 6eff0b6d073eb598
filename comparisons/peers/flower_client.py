"""What Flower's actors run. A module of its own, so that an actor loads images and network once."""

import functools

import cifar10
import torch
import torch.nn.functional as F
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from measure import device
from models import pfl_cnn

app = ClientApp()


@functools.cache
def load(path, threads, seed):
    """The network, and every user's images and labels."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    data = cifar10.load(path, "pfl_cifar10")
    images = torch.from_numpy(data.normalize(data.train_images)).to(device())
    labels = torch.from_numpy(data.train_labels).to(device())
    users = [(images[rows], labels[rows]) for rows in torch.from_numpy(data.users).long()]
    return pfl_cnn().to(device()), users


@app.train()
def train(message: Message, context: Context) -> Message:
    """One local epoch from the server's weights."""
    config = message.content["config"]
    model, users = load(config["data"], config["threads"], config["seed"])
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    model.train()
    images, labels = users[context.node_config["partition-id"]]
    task = cifar10.TASKS["pfl_cifar10"]
    optimizer = torch.optim.SGD(model.parameters(), lr=task.learning_rate)
    for batch, batch_labels in zip(
        images.split(task.batch_size), labels.split(task.batch_size), strict=True
    ):
        optimizer.zero_grad()
        F.cross_entropy(model(batch), batch_labels).backward()
        optimizer.step()
    content = RecordDict(
        {
            "arrays": ArrayRecord(model.state_dict()),
            "metrics": MetricRecord({"num-examples": len(labels)}),
        }
    )
    return Message(content=content, reply_to=message)
