"""MT-SAC in NumPy, float64, from its specification: for small multi-head networks.

Gradients are central differences, so nothing is taken from an automatic derivative.
Parameters have the places of `rl.multi_head`, which is all that is known of ours.
"""

import copy

import numpy as np
from scipy.optimize import minimize


def network(params, x, task):
    """The multi-head network on rows of one task, `[n, d]` to `[n, out]`."""
    heads = params["heads"]
    num_tasks = len(heads["bias"])
    h = np.hstack([x, np.tile(np.eye(num_tasks)[task], (len(x), 1))])
    for layer in params["trunk"]:
        h = np.maximum(h @ layer["kernel"] + layer["bias"], 0)
    return h @ heads["kernel"][task] + heads["bias"][task]


def squashed(outputs, noise):
    """Actions and log densities; the density of tanh(u) by change of variables."""
    mean, log_std = np.split(outputs, 2, axis=-1)
    log_std = np.clip(log_std, -20, 2)
    u = mean + np.exp(log_std) * noise
    normal = -0.5 * noise**2 - log_std - 0.5 * np.log(2 * np.pi)
    # 1 - tanh(u)^2 = 4 e^(-2|u|) / (1 + e^(-2|u|))^2
    size = np.abs(u)
    slope = np.log(4) - 2 * size - 2 * np.log1p(np.exp(-2 * size))
    return np.tanh(u), np.sum(normal - slope, axis=-1)


def leaves(tree):
    """Arrays of a tree of dicts and lists, in one order."""
    if isinstance(tree, dict):
        return [leaf for name in sorted(tree) for leaf in leaves(tree[name])]
    return [x for y in tree for x in leaves(y)] if isinstance(tree, list) else [tree]


def jacobian(losses, params, eps=1e-6):
    """Gradients of `losses(params) -> [K]`, a list of `[K, *leaf]`."""
    params = copy.deepcopy(params)
    found = []
    for leaf in leaves(params):
        flat, columns = leaf.reshape(-1), []
        for i, value in enumerate(flat.copy()):
            flat[i] = value + eps
            above = losses(params)
            flat[i] = value - eps
            columns.append((above - losses(params)) / (2 * eps))
            flat[i] = value
        found.append(np.stack(columns, axis=1).reshape(-1, *leaf.shape))
    return found


def total(rows):
    """The sum of the losses."""
    return np.ones(len(rows))


def pcgrad(rows):
    """Each is projected off the others, in the order of their numbers, never itself."""
    weights = np.eye(len(rows))
    for i, own in enumerate(weights):
        for j, other in enumerate(rows):
            inner = own @ rows @ other
            if j != i and inner < 0:
                own[j] -= inner / (other @ other)
    return weights.sum(axis=0)


def cagrad(rows, c=0.5):
    """By SciPy on the dual, divided by 1 + c^2."""
    num_tasks, anchor = len(rows), rows.mean(axis=0)
    scale = np.sqrt(anchor @ anchor)
    radius = c * scale

    def dual(w):
        inner = w @ rows
        return (inner @ anchor + radius * np.sqrt(inner @ inner + 1e-30)) / scale**2

    start = np.full(num_tasks, 1 / num_tasks)
    sums = {"type": "eq", "fun": lambda w: w.sum() - 1}
    bounds = [(0, 1)] * num_tasks
    options = {"ftol": 1e-16, "maxiter": 500}
    found = minimize(dual, start, bounds=bounds, constraints=sums, options=options).x
    inner = found @ rows
    return (start + radius / np.sqrt(inner @ inner) * found) / (1 + c**2)


class Adam:
    """Of one array or of a list."""

    def __init__(self, rate):
        self.rate, self.count, self.m, self.v = rate, 0, None, None

    def step(self, grads):
        if self.m is None:
            self.m, self.v = [0 * g for g in grads], [0 * g for g in grads]
        self.count += 1
        self.m = [0.9 * m + 0.1 * g for m, g in zip(self.m, grads, strict=True)]
        self.v = [0.999 * v + 0.001 * g**2 for v, g in zip(self.v, grads, strict=True)]
        m, v = 1 - 0.9**self.count, 1 - 0.999**self.count
        pairs = zip(self.m, self.v, strict=True)
        return [-self.rate * a / m / (np.sqrt(b / v) + 1e-8) for a, b in pairs]


class Reference:
    """The state of a run, updated in place."""

    def __init__(
        self,
        actor,
        critic,
        rule,
        log_alpha,
        target,
        rate=0.0,
        clip=1.0,
        alpha_rate=0.0,
        weights=None,
    ):
        self.actor, self.critic, self.target = copy.deepcopy((actor, critic, target))
        self.num_tasks = len(actor["heads"]["bias"])
        self.log_alpha = np.array(log_alpha)
        self.clipped = 0  # how often
        self.rule, self.clip, self.weights = rule, clip, weights
        self.actor_adam, self.critic_adam = Adam(rate), Adam(rate)
        # One a task, as a missing one stands still
        self.alpha_adam = [Adam(alpha_rate) for _ in range(self.num_tasks)]
        self.discount, self.tau = 0.99, 0.005

    def values(self, critic, obs, action, task):
        x = np.hstack([obs, action])
        return np.stack([network(critic[i], x, task)[:, 0] for i in ("0", "1")])

    def weighed(self, losses):
        losses = np.array(losses)
        return losses if self.weights is None else losses * self.weights(self.log_alpha)

    def critic_losses(self, critic, batch, noise):
        losses = []
        for k in range(self.num_tasks):
            obs, action, reward, next_obs, terminated = (x[k] for x in batch)
            ahead, log_prob = squashed(network(self.actor, next_obs, k), noise[k])
            value = self.values(self.target, next_obs, ahead, k).min(axis=0)
            value = value - np.exp(self.log_alpha[k]) * log_prob
            goal = reward + self.discount * (1 - terminated) * value
            errors = self.values(critic, obs, action, k) - goal[None]
            losses.append(np.mean(np.sum(errors**2, axis=0)))
        return self.weighed(losses)

    def actor_losses(self, actor, batch, noise):
        losses = []
        for k, obs in enumerate(batch[0]):
            action, log_prob = squashed(network(actor, obs, k), noise[k])
            value = self.values(self.critic, obs, action, k).min(axis=0)
            losses.append(np.mean(np.exp(self.log_alpha[k]) * log_prob - value))
        return self.weighed(losses)

    def learn(self, losses, params, adam):
        """Surgery on the trunk, a head's own gradient, clipping, Adam."""
        stack, before = jacobian(losses, params), losses(params)
        ids = [id(x) for x in leaves(params)]
        critic = "0" in params
        nets = params.values() if critic else [params]
        trunk = {id(x) for net in nets for x in leaves(net["trunk"])}
        on_trunk = [at in trunk for at in ids]
        rows = [
            g.reshape(len(g), -1) for g, s in zip(stack, on_trunk, strict=True) if s
        ]
        w = self.rule(np.hstack(rows))
        grads = [
            np.tensordot(w if s else np.ones_like(w), g, axes=1)
            for g, s in zip(stack, on_trunk, strict=True)
        ]
        norm = np.sqrt(sum(np.sum(g**2) for g in grads))
        self.clipped += norm > self.clip
        grads = [g / max(1, norm / self.clip) for g in grads]
        for leaf, step in zip(leaves(params), adam.step(grads), strict=True):
            leaf += step
        return before

    def update(self, batch, next_noise, noise):
        """Critics, actor (which sees the new critics), temperatures, targets."""
        critic_losses = self.learn(
            lambda critic: self.critic_losses(critic, batch, next_noise),
            *(self.critic, self.critic_adam),
        )
        log_probs = [
            squashed(network(self.actor, obs, k), noise[k])[1].mean()
            for k, obs in enumerate(batch[0])
        ]
        self.entropy = -np.array(log_probs)
        actor_losses = self.learn(
            lambda actor: self.actor_losses(actor, batch, noise),
            *(self.actor, self.actor_adam),
        )
        for k, (adam, log_prob) in enumerate(
            zip(self.alpha_adam, log_probs, strict=True)
        ):
            slope = np.array(-(log_prob - batch[1].shape[-1]))
            self.log_alpha[k] += adam.step([slope])[0]
        for old, new in zip(leaves(self.target), leaves(self.critic), strict=True):
            old += self.tau * (new - old)
        return critic_losses, actor_losses
