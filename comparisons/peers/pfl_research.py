"""Task pfl_cifar10 in pfl-research (Granqvist et al., NeurIPS 2024), with its PyTorch models.

    DIR/bin/python comparisons/peers/pfl_research.py --data=cifar10.npz --rounds=20 --processes=2

Several processes share the cohort and sum their updates by torch.distributed (gloo on CPU, nccl on
GPUs), started by torchrun, as pfl-research's documentation has it. --private adds the published
benchmark's central privacy. Prints the accuracy of every evaluation on standard error, and at the
end one line of JSON.
"""

import os
import sys

import cifar10
import torch
import torch.nn.functional as F
from measure import Stopwatch, parse_arguments, report
from models import accuracy, count_parameters, pfl_cnn
from pfl.aggregate.simulate import SimulatedBackend
from pfl.aggregate.weighting import WeightByUser
from pfl.algorithm import FederatedAveraging, NNAlgorithmParams
from pfl.callback.base import TrainingProcessCallback
from pfl.callback.central_evaluation import CentralEvaluationCallback
from pfl.data import FederatedDataset
from pfl.data.dataset import Dataset
from pfl.data.sampling import get_user_sampler
from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
from pfl.internal.ops.pytorch_ops import get_default_device
from pfl.metrics import Metrics, Weighted
from pfl.model.pytorch import PyTorchModel
from pfl.privacy import (
    CentrallyAppliedPrivacyMechanism,
    GaussianMechanism,
    PLDPrivacyAccountant,
)

#: Images at once in evaluation. The published benchmark takes all 10,000, which needs 4 GB.
EVAL_BATCH_SIZE = 1000

# Central privacy of the published benchmark (`baseline.yaml`): the noise is that of a cohort of
# 1,000 of a million users, scaled to the cohort that is simulated.
CLIP = 0.4
EPSILON = 2.0
DELTA = 1e-6
ROUNDS = 1500
NOISE_COHORT = 1000
POPULATION = 1_000_000


class Classifier(torch.nn.Module):
    """The network, with the two methods that pfl asks of a model."""

    def __init__(self):
        super().__init__()
        self.network = pfl_cnn()

    def loss(self, images, labels):
        """Mean cross-entropy of a batch in training."""
        self.train()
        return F.cross_entropy(self.network(images), labels)

    @torch.no_grad()
    def metrics(self, images, labels):
        """Loss and accuracy of a batch in evaluation."""
        self.eval()
        logits = self.network(images)
        loss = F.cross_entropy(logits, labels, reduction="sum").item()
        right = (logits.argmax(1) == labels).sum().item()
        return {"loss": Weighted(loss, len(labels)), "accuracy": Weighted(right, len(labels))}


class StartOfEvaluation(TrainingProcessCallback):
    """First of the callbacks: ends the round's lap."""

    def __init__(self, stopwatch):
        self.stopwatch = stopwatch

    def after_central_iteration(self, aggregate_metrics, model, *, central_iteration):
        """Called when the server's model is updated."""
        self.stopwatch.lap("round")
        return False, Metrics()


class EndOfEvaluation(StartOfEvaluation):
    """Last of the callbacks: ends the evaluation's lap, where there was one."""

    def __init__(self, stopwatch, frequency):
        super().__init__(stopwatch)
        self.frequency = frequency
        self.accuracies = {}

    def on_train_begin(self, *, model):
        """Called after the evaluation before training."""
        self.stopwatch.restart()
        return Metrics()

    def after_central_iteration(self, aggregate_metrics, model, *, central_iteration):
        """Called after the evaluation."""
        if central_iteration and central_iteration % self.frequency == 0:
            self.stopwatch.lap("evaluation")
            # The model has been updated since the iteration of that number, counted from 0.
            rounds = central_iteration + 1
            share = aggregate_metrics["Central val | accuracy"].overall_value
            self.accuracies[rounds] = share
            print(f"{rounds},{share:.4f}", file=sys.stderr, flush=True)
        self.stopwatch.restart()
        return False, Metrics()


def start_processes(number):
    """Replaces this process by torchrun, which runs this script `number` times."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={number}"]
    os.execv(sys.executable, [sys.executable, *torchrun, *sys.argv])


def central_privacy(cohort):
    """Clipping and noise of the published benchmark, for this many users a round."""
    accountant = PLDPrivacyAccountant(
        num_compositions=ROUNDS,
        sampling_probability=NOISE_COHORT / POPULATION,
        mechanism="gaussian",
        epsilon=EPSILON,
        delta=DELTA,
        noise_scale=cohort / NOISE_COHORT,
    )
    mechanism = GaussianMechanism.from_privacy_accountant(accountant, clipping_bound=CLIP)
    return CentrallyAppliedPrivacyMechanism(mechanism)


def main():
    args = parse_arguments(__doc__, processes=True, privacy=True)
    if args.processes > 1 and "TORCHELASTIC_RUN_ID" not in os.environ:
        start_processes(args.processes)
    task, data = cifar10.TASKS[args.task], cifar10.load(args.data, args.task)
    images, labels, test_images, test_labels = (
        torch.from_numpy(x).to(get_default_device())
        for x in (
            data.normalize(data.train_images),
            data.train_labels,
            data.normalize(data.test_images),
            data.test_labels,
        )
    )
    users = [(images[rows], labels[rows]) for rows in torch.from_numpy(data.users).long()]
    sampler = get_user_sampler("random", range(task.users))  # with replacement
    dataset = FederatedDataset.from_slices(users, sampler)

    classifier = Classifier().to(get_default_device())
    model = PyTorchModel(
        model=classifier,
        local_optimizer_create=torch.optim.SGD,
        central_optimizer=torch.optim.SGD(classifier.parameters(), lr=1.0),
    )
    eval_params = NNEvalHyperParams(local_batch_size=EVAL_BATCH_SIZE)
    stopwatch = Stopwatch()
    end_of_evaluation = EndOfEvaluation(stopwatch, task.eval_every)
    postprocessors = [WeightByUser()]
    if args.private:
        postprocessors.append(central_privacy(task.cohort))
    FederatedAveraging().run(
        algorithm_params=NNAlgorithmParams(
            central_num_iterations=args.warmup_rounds + args.rounds,
            evaluation_frequency=task.eval_every,
            train_cohort_size=task.cohort,
            val_cohort_size=0,
        ),
        backend=SimulatedBackend(
            training_data=dataset, val_data=dataset, postprocessors=postprocessors
        ),
        model=model,
        model_train_params=NNTrainHyperParams(
            local_learning_rate=task.learning_rate,
            local_num_epochs=1,
            local_batch_size=task.batch_size,
        ),
        model_eval_params=eval_params,
        callbacks=[
            StartOfEvaluation(stopwatch),
            CentralEvaluationCallback(
                Dataset(raw_data=(test_images, test_labels)),
                model_eval_params=eval_params,
                frequency=task.eval_every,
            ),
            end_of_evaluation,
        ],
        send_metrics_to_platform=False,
    )
    if int(os.environ.get("RANK", 0)) == 0:
        share = accuracy(classifier.network, test_images, test_labels)
        figures = {"private": args.private, "accuracies": end_of_evaluation.accuracies}
        parameters = count_parameters(classifier)
        report(args, stopwatch, share, parameters, packages=("pfl",), more=figures)


if __name__ == "__main__":
    main()
