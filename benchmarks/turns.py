"""What races of models by turns share: training by the clock, and the table and curves of their records.

A record is {"model", "rate", "budget", "weights", ..., "measured": [{"seconds", "steps", figures}]}, of one run.
"""

import math
import time

import numpy as np

from dmkeras import figures


def train(one, rate, turn, seconds, until):
    """Trains `one`, of `model`, `batches`, `steps` and `clock`, for a turn of its clock or until it shows `until`.

    The rate rises over the first 2 % of `seconds`, and falls to 1 % of `rate` along half a cosine.
    """
    end = min(one.clock + turn, until)
    while one.clock < end:
        start, done = time.perf_counter(), one.clock / seconds
        falling = 0.01 + 0.99 * (1 + math.cos(math.pi * min(done, 1.0))) / 2
        one.model.optimizer.learning_rate = rate * min(1.0, (done + 1e-3) / 0.02) * falling
        one.model.train_function(one.batches)
        one.steps += 1
        one.clock += time.perf_counter() - start


def report(lines, where, told):
    """Prints a table: mean and range over seeds at the end of each budget.

    Args:
        lines: records.
        where: their keys that tell apart what was measured, such as ("data",).
        told: {head of a column: figure}.
    """
    ends = {}
    for line in lines:
        ends.setdefault(tuple(line[key] for key in (*where, "budget", "model", "rate")), []).append(line)
    heads = [*where, "seconds", "model", "rate", "weights", "steps", *told]
    print(f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|", sep="\n")
    for (*places, budget, model, rate), found in sorted(ends.items()):
        cells = [*places, f"{budget:g}", model, f"{rate:g}", f"{found[0]['weights']:,}"]
        cells.append(f"{np.mean([one['measured'][-1]['steps'] for one in found]):.0f}")
        for key in told.values():
            values = [one["measured"][-1][key] for one in found]
            spread = f" ({min(values):.3f} to {max(values):.3f})" if len(values) > 1 else ""
            cells.append(f"{np.mean(values):.3f}{spread}")
        print(f"| {' | '.join(cells)} |")


def curve(lines, figure, title, label):
    """A figure over seconds of training, the mean over seeds, one line for each model, budget and rate."""
    series = {}
    for line in lines:
        name = f"{line['model']}, {line['budget']:g} s, rate {line['rate']:g}"
        series.setdefault(name, []).append(line["measured"])
    means = {}
    for name, runs in series.items():
        x = [point["seconds"] for point in runs[0]]
        means[name] = (x, np.mean([[point[figure] for point in run] for run in runs], axis=0))
    return figures.curves(means, title=title, x_label="training [s]", y_label=label)
