"""What `solvers.py` measured, as tables in Markdown; knows no JAX."""

from collections.abc import Mapping

from benchmarks.tables import Row, load, median, quartiles, table


def by_tasks(size: Row) -> str:
    """One number of tasks of `solvers.py`."""
    rows = []
    for name, row in size["results"].items():
        over = row.get("over_peer") or {}
        rows += [
            [
                *(name if i == 0 else "", quartiles(row["wall_ms"]) if i == 0 else ""),
                *(peer, quartiles(size["results"][peer]["wall_ms"])),
                *(median(ratio["wall"]), median(ratio["cpu"])),
                f"{size['deviations'][peer]:.1e}" if peer in size["deviations"] else "",
            ]
            for i, (peer, ratio) in enumerate(over.items())
        ]
        if not over and not name.startswith(("torchjd", "jaxjd")):
            rows.append([name, quartiles(row["wall_ms"]), *[""] * 5])
    title = f"**T={size['num_tasks']}** ({load(size)} after; ms a matrix)"
    head = ["rule", "wall ms (quartiles)", "peer", "its wall ms", "wall ours / its"]
    return f"\n{title}\n\n{table([*head, 'CPU ours / its', 'weights apart'], rows)}"


def against_goals(record: Row, goals: Mapping[str, float], other: float) -> str:
    """Ratios of wall times to TorchJD, by method and tasks, against the goal."""
    sizes = record["sizes"]
    names = [name for name, row in sizes[0]["results"].items() if row.get("over_peer")]
    rows = []
    for name in names:
        found = [size["results"][name]["over_peer"] for size in sizes]
        ratios = [peers.get(f"torchjd {name}", {}).get("wall") for peers in found]
        goal = goals.get(name, other)
        known = [r["median"] for r in ratios if r and r["median"] is not None]
        missed = sum(r > goal for r in known)
        met = "yes" if not missed else f"**no**, {missed} of {len(known)}"
        rows.append([name, *(median(r, 2) for r in ratios), f"{goal:g}", met])
    head = ["wall / TorchJD's", *(f"T={s['num_tasks']}" for s in sizes), "goal", "met"]
    return table(head, rows)


def over_jaxjd(record: Row) -> str:
    """UPGrad's ratios to JaxJD's solvers, by tasks, and how far its weights are off."""
    sizes = record["sizes"]
    rows = []
    for peer in sizes[0]["results"]:
        if peer.startswith("jaxjd"):
            found = [size["results"]["upgrad"]["over_peer"][peer] for size in sizes]
            apart = [f"{size['deviations'][peer]:.0e}" for size in sizes]
            rows.append([f"wall / {peer}", *(median(r["wall"], 2) for r in found)])
            rows.append([f"weights apart from {peer}", *apart])
    if not rows:
        return "Not measured in this run."
    return table(["upgrad", *(f"T={size['num_tasks']}" for size in sizes)], rows)


def jacobians(record: Row) -> str:
    """UPGrad from Jacobians, and what JaxJD has published of the same sizes."""
    published = {
        (row["num_tasks"], row["num_params"]): row
        for row in record["published"]["rows"]
    }
    rows = []
    for size in record["jacobians"]:
        key = size["num_tasks"], size["num_params"]
        results, theirs = size["results"], published.get(key, {})
        over = results["upgrad"]["over_peer"]
        for name, row in results.items():
            ratio = over[name]["wall"] if name in over else None
            cells = [f"{key[0]} x {key[1]}", name, quartiles(row["wall_ms"])]
            figure = theirs.get(name)
            rows.append([*cells, median(ratio), f"{figure:g}" if figure else ""])
    head = ["tasks x parameters", "UPGrad by", "wall ms (quartiles)"]
    head += ["wall ours / its", "ms, a figure of JaxJD's"]
    return "\n" + table(head, rows)
