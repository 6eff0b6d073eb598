"""Every algorithm on softmax regression, written out in NumPy from the equations, in float64.

Independent of the package: loops over clients, batches and samples, gradients by hand. Only what is
drawn at random (cohorts, orders of samples) is given to it.
"""

import itertools

import numpy as np


class Reference:
    """Federated training of theta = [W; b], float64 [d + 1, K]; features are the logits."""

    def __init__(self, inputs, labels, clients, theta, config, anchors):
        self.x = np.hstack([inputs, np.ones((len(inputs), 1))])
        self.y, self.clients, self.config, self.anchors = labels, clients, config, anchors
        self.theta = theta
        self.num_clients = len(clients)
        self.name = config.algorithm.name
        zeros = np.zeros_like(theta)
        self.own = [zeros.copy() for _ in clients]  # c_i, l_i
        self.common = zeros.copy()  # c, mean of l_i, momentum
        self.second = np.full_like(theta, config.algorithm.server_tau**2)
        self.previous = [None for _ in clients]
        self.caches = [[] for _ in clients]
        self.chosen = {}
        self.average = theta
        self.round = 0

    def cross_entropy(self, theta, rows):
        logits = self.x[rows] @ theta
        p = np.exp(logits - logits.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        onehot = np.eye(theta.shape[1])[self.y[rows]]
        loss = -np.log(p[np.arange(len(rows)), self.y[rows]]).mean()
        return loss, self.x[rows].T @ (p - onehot) / len(rows)

    def gradient(self, theta, rows, client):
        settings = self.config.algorithm.settings
        loss, gradient = self.cross_entropy(theta, rows)
        mu = settings.mu if self.name in ("fedprox", "fednova") else 0
        mu = settings.alpha if self.name == "feddyn" else mu
        gradient = gradient + mu * (theta - self.theta)
        if self.name == "moon" and self.previous[client] is not None:
            gradient += self.through(theta, rows, self.moon(theta, rows, client))
        if self.name == "fedrcl":
            gradient += self.through(theta, rows, self.fedrcl(theta, rows))
        if self.name == "feddifrc":
            gradient += self.through(theta, rows, self.feddifrc(theta, rows))
        if self.name == "scaffold":
            gradient += self.common - self.own[client]
        if self.name == "feddyn":
            gradient += settings.alpha * self.own[client]
        return loss, gradient + self.config.weight_decay * theta

    def through(self, theta, rows, by_unit):
        """From the gradient with respect to the rows' unit features to that of theta."""
        z = self.x[rows] @ theta
        norm = np.linalg.norm(z, axis=1, keepdims=True)
        u = z / norm
        by_z = (by_unit - (by_unit * u).sum(1, keepdims=True) * u) / norm
        return self.x[rows].T @ by_z / len(rows)

    def unit(self, theta, rows):
        z = self.x[rows] @ theta
        return z / np.linalg.norm(z, axis=1, keepdims=True)

    def moon(self, theta, rows, client):
        settings = self.config.algorithm.settings
        u, towards = self.unit(theta, rows), self.unit(self.theta, rows)
        away = self.unit(self.previous[client], rows)
        a = np.exp((u * towards).sum(1, keepdims=True) / settings.temperature)
        b = np.exp((u * away).sum(1, keepdims=True) / settings.temperature)
        return settings.mu * b / (a + b) * (away - towards) / settings.temperature

    def fedrcl(self, theta, rows):
        settings = self.config.algorithm.settings
        tau, u, y = settings.temperature, self.unit(theta, rows), self.y[rows]
        s = u @ u.T
        by_s = np.zeros_like(s)
        for i in range(len(rows)):
            same = [j for j in range(len(rows)) if y[j] == y[i]]
            positive = min(same, key=lambda j: s[i, j])
            others = [j for j in range(len(rows)) if y[j] != y[i]]
            negatives = sorted(others, key=lambda j: -s[i, j])[:2]
            terms = [np.exp((s[i, j] - s[i, positive]) / tau) for j in negatives]
            for j, term in zip(negatives, terms, strict=True):
                by_s[i, j] += settings.weight * term / (1 + sum(terms)) / tau
                by_s[i, positive] -= settings.weight * term / (1 + sum(terms)) / tau
            partners = [j for j in same if j != i]
            if partners:
                j = min(partners, key=lambda j: s[i, j])
                if s[i, j] >= settings.threshold:
                    e = np.exp((s[i, j] - 1) / tau)
                    by_s[i, j] += settings.penalty_weight * e / (1 + e) / tau
        return (by_s + by_s.T) @ u

    def feddifrc(self, theta, rows):
        settings = self.config.algorithm.settings
        u = self.unit(theta, rows)
        logits = u @ self.anchors.T / settings.temperature
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        onehot = np.eye(len(self.anchors))[self.y[rows]]
        contrast = (p - onehot) @ self.anchors / settings.temperature
        regression = 2 * (u - self.anchors[self.y[rows]])
        return settings.lambda_tdcl * contrast + settings.lambda_ndcr * regression

    def train(self, client, orders):
        config, rho = self.config, self.config.momentum
        theta, velocity, steps = self.theta.copy(), np.zeros_like(self.theta), 0
        # What K steps of gradient one would move, one by one: FedNova's and SCAFFOLD's K_eff.
        way = speed = 0.0
        mu = config.algorithm.settings.mu if self.name == "fednova" else 0.0
        for order in orders:
            last = 0.0
            for start in range(0, len(order), config.batch_size):
                rows = self.clients[client][order[start : start + config.batch_size]]
                loss, gradient = self.gradient(theta, rows, client)
                last += loss * len(rows)
                velocity = rho * velocity + gradient
                theta = theta - config.learning_rate * velocity
                speed = rho * speed + 1 - config.learning_rate * mu * way
                way += speed
                steps += 1
        return theta, way, last / len(self.clients[client])

    def weights(self, cohort):
        kind = self.config.algorithm.weights
        sizes = np.array([len(self.clients[c]) for c in cohort], float)
        if kind == "auto":
            kind = "uniform" if self.name in ("scaffold", "fedrcl", "feddyn") else "size"
            kind = "disco" if self.name == "feddisco" else kind
        if kind == "uniform":
            return np.full(len(cohort), 1 / len(cohort))
        p = sizes / sizes.sum()
        if kind == "disco":
            settings, classes, d = self.config.algorithm.feddisco, self.theta.shape[1], []
            for client in cohort:
                share = np.bincount(self.y[self.clients[client]], minlength=classes)
                share = share / share.sum()
                d.append(sum(q * np.log(q * classes) for q in share if q > 0))
            p = np.maximum(p - settings.a * np.array(d) / sum(d) + settings.b, 0)
        return p / p.sum()

    def run_round(self, cohort, orders):
        settings, x = self.config.algorithm, self.theta
        trained = {c: self.train(c, orders[c]) for c in cohort}
        p = self.weights(cohort)
        delta = sum(w * (trained[c][0] - x) for w, c in zip(p, cohort, strict=True))
        if self.name == "scaffold":
            change = 0
            for c in cohort:
                y, k, _ = trained[c]
                new = self.own[c] - self.common + (x - y) / (k * self.config.learning_rate)
                change = change + new - self.own[c]
                self.own[c] = new
            self.common = self.common + change / self.num_clients
            self.theta = x + delta
        elif self.name == "fednova":
            a = np.array([trained[c][1] for c in cohort])
            d = sum(w * (trained[c][0] - x) / k for w, c, k in zip(p, cohort, a, strict=True))
            self.theta = x + (p * a).sum() * d
        elif self.name == "feddyn":
            alpha, h = settings.settings.alpha, -settings.settings.alpha * self.common
            for c in cohort:
                self.own[c] = self.own[c] + trained[c][0] - x
                h = h - alpha / self.num_clients * (trained[c][0] - x)
            self.common = -h / alpha
            self.average = x + delta
            self.theta = self.average - h / alpha
        elif self.name == "fedcda":
            self.fedcda(cohort, trained, delta)
        else:
            self.server_step(delta)
        for c in cohort:
            self.previous[c] = trained[c][0]
        self.round += 1

    def fedcda(self, cohort, trained, delta):
        settings = self.config.algorithm.settings
        for c in cohort:
            self.caches[c] = [*self.caches[c], (trained[c][0], trained[c][2])][-settings.models :]
            # Older choices slide with the list; participants choose anew below.
            self.chosen[c] = self.caches[c][-1]
        if self.round < int(settings.warmup * self.config.rounds):
            self.theta = self.theta + delta
            return
        best = None
        for picks in itertools.product(*(self.caches[c] for c in cohort)):
            choice = {**self.chosen, **dict(zip(cohort, picks, strict=True))}
            models = [model for model, _ in choice.values()]
            mean = sum(models) / len(models)
            spread = sum(((m - mean) ** 2).sum() for m in models) / len(models)
            value = sum(loss for _, loss in choice.values()) / len(models)
            value += settings.smoothness / 2 * spread
            if best is None or value < best[0]:
                best = (value, choice, mean)
        _, self.chosen, self.theta = best

    def server_step(self, delta):
        settings = self.config.algorithm
        kind, rate = settings.optimizer, settings.server_learning_rate
        b1, b2 = settings.server_momentum, settings.server_beta2
        if kind == "sgd":
            self.theta = self.theta + (1 if rate == "auto" else rate) * delta
        elif kind == "momentum":
            self.common = b1 * self.common + delta
            self.theta = self.theta + (1 if rate == "auto" else rate) * self.common
        else:
            self.common = b1 * self.common + (1 - b1) * delta
            if kind == "adam":
                self.second = b2 * self.second + (1 - b2) * delta**2
            elif kind == "adagrad":
                self.second = self.second + delta**2
            else:
                sign = np.sign(self.second - delta**2)
                self.second = self.second - (1 - b2) * delta**2 * sign
            step = self.common / (np.sqrt(self.second) + settings.server_tau)
            self.theta = self.theta + (0.01 if rate == "auto" else rate) * step
