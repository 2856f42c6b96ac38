"""Times that peers have published: figures of theirs, not measured here."""

from typing import Any

# What its README says: ms a call of the aggregator, tasks times parameters, on a CPU
# that it does not name, float64, mean of 50 calls.
JAXJD: dict[str, Any] = {
    "source": "https://github.com/CVC-Lab/JaxJD, README 5.3, commit f4bca40 of 2026",
    "rows": [
        {
            "num_tasks": num_tasks,
            "num_params": num_params,
            "torchjd upgrad": torchjd,
            "jaxjd qpax": qpax,
            "jaxjd nesterov_pgd": nesterov,
        }
        for num_tasks, num_params, torchjd, qpax, nesterov in (
            (2, 10, 0.81, 3.60, 1.72),
            (5, 50, 1.49, 5.33, 3.97),
            (10, 100, 2.10, 5.72, 2.19),
            (20, 500, 10.73, 5.44, 1.91),
            (32, 1000, 35.41, 9.25, 5.79),
        )
    ],
    # README 5.2: a step of SGD on Linear(10, 5), ReLU, Linear(5, 2), two losses
    "step_ms": {"num_tasks": 2, "torchjd": 13.98, "jaxjd": 7.91},
}
