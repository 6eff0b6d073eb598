"""One federated round: the cohort, local training, aggregation, evaluation."""
