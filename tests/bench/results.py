# SPDX-License-Identifier: Apache-2.0
"""What was measured, against what, and whether it is enough: the table and bench.json."""
import dataclasses
import json
import os
import statistics


@dataclasses.dataclass
class Goal:
    """`limit` bounds the ratio to the peer, the difference from it, or the value itself, from above; "least" bounds the
    ratio from below."""

    kind: str  # "ratio", "least", "difference" or "value"
    limit: float

    def text(self, unit):
        if self.kind == "ratio":
            return f"<= {self.limit:g} x"
        if self.kind == "least":
            return f">= {self.limit:g} x"
        if self.kind == "difference":
            return f"<= {self.limit:g} {unit} more"
        return f"= {self.limit:g}" if self.limit == 0 else f"<= {self.limit:g} {unit}"


@dataclasses.dataclass
class Measure:
    measure: str
    unit: str
    ours: float | None = None
    peer: float | None = None
    peer_name: str | None = None
    goal: Goal | None = None
    why: str | None = None  # why there is no value, no peer, or what one has to know about them
    details: dict = dataclasses.field(default_factory=dict)

    def ratio(self):
        if self.ours is None or not self.peer:
            return None
        return self.ours / self.peer

    def ok(self):
        """None where nothing was promised, or nothing could be measured."""
        if self.goal is None or self.ours is None:
            return None
        if self.goal.kind == "value":
            return self.ours <= self.goal.limit
        if self.peer is None:
            return None
        if self.goal.kind == "difference":
            return self.ours - self.peer <= self.goal.limit
        ratio = self.ratio()
        if ratio is None:
            return None
        return ratio >= self.goal.limit if self.goal.kind == "least" else ratio <= self.goal.limit

    def record(self):
        ratio = self.ratio()
        record = {
            "measure": self.measure,
            "unit": self.unit,
            "ours": rounded(self.ours),
            "peer": rounded(self.peer),
            "peer_name": self.peer_name,
            "ratio": rounded(ratio),
            "goal": self.goal.text(self.unit) if self.goal else None,
            "ok": self.ok(),
        }
        if self.why:
            record["why"] = self.why
        record.update(self.details)
        return record


def rounded(value):
    return None if value is None else float(f"{value:.4g}")


def summary(values):
    """The spread of a series, for a record's details."""
    return {"n": len(values), "min": rounded(min(values)), "max": rounded(max(values))}


def compare(measure, unit, ours, peer=(), peer_name=None, goal=None, why=None):
    """A measure of two series: their medians, with counts and spreads."""
    result = Measure(measure, unit, peer_name=peer_name, goal=goal, why=why)
    if ours:
        result.ours = statistics.median(ours)
        result.details |= summary(ours)
    if peer:
        result.peer = statistics.median(peer)
        result.details |= {"peer_" + key: value for key, value in summary(peer).items()}
    return result


def number(value):
    return "-" if value is None else f"{value:.4g}"


class Results:
    """Prints a line for each measure as it comes, and keeps them all."""

    WIDTHS = (56, 8, 10, 10, 26, 8, 16, 5)

    def __init__(self, wanted, short=False):
        self.wanted = wanted
        self.short = short  # less data where that changes little
        self.measures = []

    def head(self):
        self.line("measure", "unit", "ours", "peer", "peer is", "ratio", "goal", "ok")

    def line(self, *cells):
        print("  ".join(str(cell).ljust(width) for cell, width in zip(cells, self.WIDTHS)).rstrip(), flush=True)

    def add(self, *measures):
        for measure in measures:
            if not self.wanted(measure.measure):
                continue
            self.measures.append(measure)
            ok = {None: "", True: "yes", False: "NO"}[measure.ok()]
            goal = measure.goal.text(measure.unit) if measure.goal else ""
            self.line(measure.measure, measure.unit, number(measure.ours), number(measure.peer),
                      measure.peer_name or "", number(measure.ratio()), goal, ok)
            if measure.why:
                print("    " + measure.why, flush=True)

    def write(self, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(".json.new")
        new.write_text(json.dumps([measure.record() for measure in self.measures], indent=1) + "\n")
        os.replace(new, path)
