"""The bilevel methods as their papers define them, in NumPy, on quadratic losses.

Slopes in what is learned are central differences of the definition, quadratic programs
are solved by trying every set of active constraints, and a task that is missing is not
there: only the others are looped over.
"""

from itertools import chain, combinations

import numpy as np

SMALL = 1e-6  # of central differences


class Quadratics:
    """`1/2 (x - c_t)' H_t (x - c_t)` for each task."""

    def __init__(self, centres, matrices):
        self.centres, self.matrices = centres, matrices

    def loss(self, task, x):
        off = x - self.centres[task]
        return off @ self.matrices[task] @ off / 2

    def slope(self, task, x):
        return self.matrices[task] @ (x - self.centres[task])


class Adam:
    """One number a task, each with a step count of its own."""

    def __init__(self, values, rate):
        self.values, self.rate = np.array(values, float), rate
        self.first, self.second, self.count = (np.zeros(len(values)) for _ in range(3))

    def step(self, slopes):
        for t, slope in slopes.items():
            self.count[t] += 1
            self.first[t] = 0.9 * self.first[t] + 0.1 * slope
            self.second[t] = 0.999 * self.second[t] + 0.001 * slope**2
            mean = self.first[t] / (1 - 0.9 ** self.count[t])
            size = np.sqrt(self.second[t] / (1 - 0.999 ** self.count[t]))
            self.values[t] -= self.rate * mean / (size + 1e-8)


def softmax(values, tasks):
    powers = {t: np.exp(values[t]) for t in tasks}
    return {t: power / sum(powers.values()) for t, power in powers.items()}


def weighted(weights, gradients):
    return sum((w * gradients[t] for t, w in weights.items()), start=np.zeros(3))


def differences(function, values, tasks):
    """Of a function of values, its slopes in those of some tasks."""

    def at(task, way):
        moved = values.copy()
        moved[task] += way * SMALL
        return function(moved)

    return {t: (at(t, 1) - at(t, -1)) / (2 * SMALL) for t in tasks}


def sets_of(items):
    return chain.from_iterable(combinations(items, n) for n in range(len(items) + 1))


def shortest(rows):
    """Weights of the shortest vector in the hull of some rows, by trying all faces."""
    best, found = np.inf, None
    for face in filter(len, sets_of(range(len(rows)))):
        some = rows[list(face)]
        system = np.block(
            [[some @ some.T, np.ones((len(face), 1))], [np.ones(len(face)), 0]]
        )
        w = np.linalg.lstsq(system, np.eye(len(face) + 1)[-1], rcond=None)[0][:-1]
        length = np.sum((w @ some) ** 2)
        if w.min() > -1e-9 and abs(w.sum() - 1) < 1e-9 and length < best - 1e-12:
            best, found = length, np.zeros(len(rows))
            found[list(face)] = w
    return found


def gap_program(units, q, square, phi):
    """FORUM's weights: every face, with nu free, at either bound, or at both."""
    n = len(units)
    excess = phi - units @ q / square
    matrix = np.zeros((n + 1, n + 1))
    matrix[:n, :n], matrix[:n, n] = units @ units.T, units @ q
    matrix[n, :n], matrix[n, n] = units @ q, square
    linear = np.append(np.zeros(n), phi * square)  # taken away

    def value(z):
        return z @ matrix @ z - linear @ z

    bounds = [np.append(-excess, 1.0), np.append(np.zeros(n), 1.0)]
    best = None
    for face in filter(len, sets_of(range(n))):
        out = [np.eye(n + 1)[t] for t in range(n) if t not in face]
        for tight in sets_of(bounds):
            rows = np.stack([np.append(np.ones(n), 0.0), *out, *tight])
            right = np.eye(len(rows))[0]
            zeros = np.zeros((len(rows), len(rows)))
            system = np.block([[2 * matrix, rows.T], [rows, zeros]])
            z, *_ = np.linalg.lstsq(system, np.append(linear, right), rcond=None)
            z = z[: n + 1]
            fits = z[:n].min() > -1e-8 and min(b @ z for b in bounds) > -1e-8
            fits = fits and np.allclose(rows @ z, right, atol=1e-8)
            if fits and (best is None or value(z) < value(best) - 1e-13):
                best = z
    return best[:n], best[n]


class AutoLambda:
    def __init__(self, num_tasks, rate, eta, init=0.1, primary=None, soft=False):
        self.learned = Adam(np.broadcast_to(init, num_tasks), rate)
        self.primary = np.ones(num_tasks) if primary is None else primary
        self.eta, self.soft = eta, soft

    def weights(self, values, tasks):
        return softmax(values, tasks) if self.soft else {t: values[t] for t in tasks}

    def update(self, x, train, validation, tasks, judges):
        gradients = {t: train.slope(t, x) for t in tasks}
        now = self.weights(self.learned.values, tasks)
        ahead = x - self.eta * weighted(now, gradients)
        judges = [t for t in judges if self.primary[t]]
        if judges and tasks:
            uphill = sum(self.primary[t] * validation.slope(t, ahead) for t in judges)
            far = 0.01 / np.linalg.norm(uphill)
            rises = {  # exact for quadratics
                t: train.loss(t, x + far * uphill) - train.loss(t, x - far * uphill)
                for t in tasks
            }

            def gain(values):
                weights = self.weights(values, tasks)
                return sum(-self.eta * weights[t] * rises[t] for t in tasks)

            slopes = differences(gain, self.learned.values, tasks)
            self.learned.step({t: h / (2 * far) for t, h in slopes.items()})
        new = self.weights(self.learned.values, tasks)
        return weighted(new, gradients), new


class MOML:
    def __init__(self, num_tasks, rate, eta):
        self.learned, self.eta = Adam(np.full(num_tasks, 1 / num_tasks), rate), eta

    def update(self, x, train, validation, tasks, judges):
        gradients = {t: train.slope(t, x) for t in tasks}

        def loss_after(values, task):
            step = weighted(softmax(values, tasks), gradients)
            return validation.loss(task, x - self.eta * step)

        if tasks and judges:
            rows = []
            for task in judges:
                slopes = differences(
                    lambda values, task=task: loss_after(values, task),
                    *(self.learned.values, tasks),
                )
                row = np.array([slopes[t] for t in tasks])
                rows.append(row / np.linalg.norm(row))
            rows = np.stack(rows)
            descent = shortest(rows) @ rows
            descent[np.abs(descent) < 1e-7] = 0  # of rows that cancel
            self.learned.step(dict(zip(tasks, descent, strict=True)))
        new = softmax(self.learned.values, tasks)
        return weighted(new, gradients), new


class FORUM:
    def __init__(self, num_tasks, rate, eta, inner_steps, phi):
        self.learned = Adam(np.full(num_tasks, 1 / num_tasks), rate)
        self.eta, self.inner_steps, self.phi = eta, inner_steps, phi
        self.mean, self.count = np.zeros(num_tasks), 0

    def update(self, x, train, validation, tasks, judges):
        shares = softmax(self.learned.values, tasks)

        def down(x):
            return weighted(shares, {t: train.slope(t, x) for t in tasks})

        there = x
        for _ in range(self.inner_steps):
            there = there - self.eta * down(there)

        def value_gap(values):
            weights = softmax(values, tasks).items()
            return sum(
                w * (train.loss(t, x) - train.loss(t, there)) for t, w in weights
            )

        own = differences(value_gap, self.learned.values, tasks)
        q = down(x)
        square = sum(s**2 for s in own.values()) + q @ q + 1e-8
        if not judges:
            return np.zeros(3), {}
        units = np.stack([validation.slope(t, x) for t in judges])
        units /= np.linalg.norm(units, axis=1, keepdims=True)
        w, nu = gap_program(units, q, square, self.phi)
        excess = self.phi - units @ q / square
        np.testing.assert_allclose(nu, max(w @ excess, 0), atol=1e-7)
        self.mean[judges] += (self.count + 1) ** -0.75 * (w - self.mean[judges])
        self.count += 1
        nu = max(self.mean[judges] @ excess, 0)
        self.learned.step({t: nu * slope for t, slope in own.items()})
        step = self.mean[judges] @ units + nu * q
        return step, {t: nu * s for t, s in shares.items()}
