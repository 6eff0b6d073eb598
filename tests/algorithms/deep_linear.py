"""Algorithms on a deep linear network, written out in NumPy from their equations, in float64.

Independent of the package: loops over clients, batches and steps, gradients by hand. Only what is
drawn at random is given to it: cohorts, orders of samples, and FedETF's simplex.
"""

import numpy as np


def plus(a, b, scale=1.0):
    return {name: a[name] + scale * b[name] for name in a}


def minus(a, b):
    return plus(a, b, -1.0)


def times(scale, a):
    return {name: scale * a[name] for name in a}


def mean(trees):
    return times(1 / len(trees), {name: sum(tree[name] for tree in trees) for name in trees[0]})


def softmax(z):
    p = np.exp(z - z.max(1, keepdims=True))
    return p / p.sum(1, keepdims=True)


def squared_norm(a):
    return sum((x**2).sum() for x in a.values())


class Solver:
    """Heavy-ball momentum in PyTorch's form, with weight decay, on some of the names."""

    def __init__(self, config):
        self.rate, self.rho = config.learning_rate, config.momentum
        self.decay, self.velocity = config.weight_decay, {}

    def step(self, w, gradient, names=("base", "head")):
        w = dict(w)
        for name in w:
            moving = name in names
            g = gradient[name] + self.decay * w[name] if moving else 0.0
            self.velocity[name] = self.rho * self.velocity.get(name, 0.0) + g
            if moving:
                w[name] = w[name] - self.rate * self.velocity[name]
        return w


class DeepLinearReference:
    """Federated training of {"base": [d, h], "head": [h, K]}."""

    def __init__(self, inputs, labels, clients, start, config, simplex=None):
        self.x, self.y, self.clients, self.config = inputs, labels, clients, config
        self.name, self.settings = config.algorithm.name, config.algorithm.settings
        self.model = {name: value.astype(np.float64) for name, value in start.items()}
        self.own = [self.initial() for _ in clients]
        self.tested, self.simplex = self.model, simplex
        self.models = [self.model]  # IFCA's

    def initial(self):
        if self.name == "ifca":
            return 0
        if self.name in ("fedper", "fedrep"):
            return {"head": self.model["head"]}
        if self.name == "apfl":
            return self.model, self.settings.alpha
        if self.name == "fedala":
            return self.model["head"], np.ones_like(self.model["head"])
        return self.model

    def mixed(self, own, model):
        """FedALA's start: the head element by element, between the client's and the server's."""
        return {**model, "head": own[0] + (model["head"] - own[0]) * own[1]}

    def take_over(self, client, orders):
        """FedALA's weights after some batches of the first epoch."""
        head, weights = self.own[client]
        batches = list(self.batches(client, orders[:1]))
        for _, rows in batches[: int(np.ceil(self.settings.share * len(batches)))]:
            start = self.mixed((head, weights), self.model)
            gradient = self.loss_and_gradient(start, rows, client)[1]["head"]
            step = self.settings.rate * gradient * (self.model["head"] - head)
            weights = np.clip(weights - step, 0, 1)
        return weights

    def loss_and_gradient(self, w, rows, client):
        x, onehot = self.x[rows], np.eye(w["head"].shape[1])[self.y[rows]]
        features = x @ w["base"]
        logits = features @ w["head"]
        if self.name == "fedetf":
            norm = np.linalg.norm(features, axis=1, keepdims=True)
            u, scale = features / norm, self.settings.scale
            p = softmax(scale * u @ self.simplex)
            by_u = scale * (p - onehot) @ self.simplex.T / len(rows)
            by_f = (by_u - (by_u * u).sum(1, keepdims=True) * u) / norm
            loss = -np.log((p * onehot).sum(1)).mean()
            return loss, {"base": x.T @ by_f, "head": np.zeros_like(w["head"])}
        if self.name == "fedlc":
            counts = np.bincount(self.y[self.clients[client]], minlength=onehot.shape[1])
            with np.errstate(divide="ignore"):
                logits = logits - self.settings.tau * counts.astype(float) ** -0.25
        p = softmax(logits)
        loss, by_z = -np.log((p * onehot).sum(1)).mean(), (p - onehot) / len(rows)
        if self.name == "fedntd":
            more, by_more = self.not_true(logits, x @ self.model["base"] @ self.model["head"], rows)
            loss, by_z = loss + more, by_z + by_more
        return loss, {"base": x.T @ by_z @ w["head"].T, "head": features.T @ by_z}

    def not_true(self, own, received, rows):
        tau, total, by_own = self.settings.temperature, 0.0, np.zeros_like(own)
        for i, row in enumerate(rows):
            others = [c for c in range(own.shape[1]) if c != self.y[row]]
            q, p = (softmax(z[i : i + 1, others] / tau)[0] for z in (received, own))
            total += self.settings.beta * tau**2 * (q * np.log(q / p)).sum() / len(rows)
            by_own[i, others] = self.settings.beta * tau * (p - q) / len(rows)
        return total, by_own

    def batches(self, client, orders):
        for epoch, order in enumerate(orders):
            for start in range(0, len(order), self.config.batch_size):
                yield epoch, self.clients[client][order[start : start + self.config.batch_size]]

    def least(self, client, orders):
        """IFCA's choice: the model of least loss over the batches of the first epoch."""
        batches = [rows for _, rows in self.batches(client, orders[:1])]
        losses = [
            np.mean([self.loss_and_gradient(model, rows, client)[0] for rows in batches])
            for model in self.models
        ]
        return int(np.argmin(losses))

    def begin(self, client):
        if self.name == "ifca":
            return self.models[self.own[client]]
        if self.name == "local":
            return self.own[client]
        if self.name in ("fedper", "fedrep"):
            return {**self.model, **self.own[client]}
        if self.name == "fedetf":
            return {**self.model, "head": self.simplex}
        if self.name == "fedala":
            return self.mixed(self.own[client], self.model)
        return self.model

    def train(self, client, orders):
        """Return the trained model, and the loss of the received one over the client's samples."""
        if self.name == "ifca":
            self.own[client] = self.least(client, orders)
        if self.name == "fedala":
            self.own[client] = self.own[client][0], self.take_over(client, orders)
        w, solver, second = self.begin(client), Solver(self.config), Solver(self.config)
        own, before = self.own[client], 0.0
        for epoch, rows in self.batches(client, orders):
            gradient = self.loss_and_gradient(w, rows, client)[1]
            names = ("base", "head")
            if self.name == "fedrep":
                names = ("head",) if epoch < len(orders) - self.settings.body_epochs else ("base",)
            if self.name == "fedetf":
                names = ("base",)
            if self.name == "fedsam":
                reach = self.settings.rho / np.sqrt(squared_norm(gradient))
                gradient = self.loss_and_gradient(plus(w, gradient, reach), rows, client)[1]
            if self.name == "qffl" and epoch == 0:
                before += self.loss_and_gradient(self.model, rows, client)[0] * len(rows)
            if self.name == "ditto":
                pull = times(self.settings.weight, minus(own, self.model))
                own_gradient = self.loss_and_gradient(own, rows, client)[1]
                own = second.step(own, plus(own_gradient, pull))
            if self.name == "apfl":
                v, alpha = own
                mixed = self.loss_and_gradient(plus(times(alpha, v), w, 1 - alpha), rows, client)[1]
                slope = sum((mixed[n] * (v[n] - w[n])).sum() for n in w)
                v = second.step(v, times(alpha, mixed))
                if self.settings.adaptive:
                    alpha = np.clip(alpha - self.config.learning_rate * slope, 0, 1)
                own = v, alpha
            if self.name == "pfedme":
                own = w
                for _ in range(self.settings.inner_steps):
                    pull = times(self.settings.weight, minus(own, w))
                    step = plus(self.loss_and_gradient(own, rows, client)[1], pull)
                    own = plus(own, step, -self.settings.inner_rate)
                gradient = times(self.settings.weight, minus(w, own))
            w = solver.step(w, gradient, names)
        if self.name == "local":
            own = w
        if self.name in ("fedper", "fedrep"):
            own = {"head": w["head"]}
        if self.name == "fedala":
            own = w["head"], own[1]
        return w, own, before / len(self.clients[client])

    def run_round(self, cohort, orders):
        trained = [self.train(client, orders[client]) for client in cohort]
        for client, (_, own, _) in zip(cohort, trained, strict=True):
            self.own[client] = own
        if self.name == "ifca":
            self.by_choice(cohort, [w for w, _, _ in trained])
            return
        deltas = [minus(w, self.model) for w, _, _ in trained]
        sizes = np.array([len(self.clients[client]) for client in cohort], float)
        p = np.full(len(cohort), 1 / len(cohort)) if self.name == "pfedme" else sizes / sizes.sum()
        step = mean([times(len(p) * weight, d) for weight, d in zip(p, deltas, strict=True)])
        before = self.model
        if self.name == "qffl":
            q, rate, numerator, total = self.settings.q, self.config.learning_rate, [], 0.0
            for d, (_, _, loss) in zip(deltas, trained, strict=True):
                numerator.append(times(loss**q / rate, d))
                total += q * loss ** (q - 1) * squared_norm(d) / rate**2 + loss**q / rate
            step = times(len(cohort) / total, mean(numerator))
        if self.name == "fedexp":
            spread = sum(w * squared_norm(d) for w, d in zip(p, deltas, strict=True))
            longer = spread / (2 * (squared_norm(step) + self.settings.epsilon))
            step = times(max(1, longer), step)
        kept = {"local": ("base", "head"), "fedper": "head", "fedrep": "head", "fedetf": "head"}
        after = plus(before, step)
        self.model = {n: before[n] if n in kept.get(self.name, ()) else after[n] for n in after}
        self.tested = self.model
        if self.name == "fedexp":
            self.tested = mean([before, self.model])
        if self.name == "fedetf":
            self.tested = {**self.model, "head": self.simplex}

    def by_choice(self, cohort, trained):
        """IFCA's round: every model becomes the mean, by size, of those who chose it."""
        sizes = [len(self.clients[client]) for client in cohort]
        weights = [0.0] * len(self.models)
        for index in range(len(self.models)):
            who = [i for i, client in enumerate(cohort) if self.own[client] == index]
            weights[index] = sum(sizes[i] for i in who)
            if who:
                parts = [times(len(who) * sizes[i] / weights[index], trained[i]) for i in who]
                self.models[index] = mean(parts)
        self.model, self.tested = self.models[0], self.models[int(np.argmax(weights))]
