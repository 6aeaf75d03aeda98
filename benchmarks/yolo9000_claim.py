"""What a tree of labels is worth to classes that never had a box: beside a flat softmax, and beside a shuffled tree.

    python -m benchmarks.yolo9000_claim
    python -m benchmarks.yolo9000_claim --things garments --labelled 640 --boxes-epochs 8 --seeds 0 1 2 3 4 5
    python -m benchmarks.yolo9000_claim --report

training/yolo9000.py in three ways that differ in the tree alone: `natural`; `flat`, one softmax over the leaves;
`shuffled`, the natural tree with its leaves at one another's places, drawn anew for each seed. Half of the leaves have
boxes in training, the others labels of whole pictures alone, each the name of one of three things that it shows. Data,
network, steps and, for one seed, order are the same for all three. Records go to `--log`; what stands there already is
not trained again. The report tells means and standard errors over seeds, and of the differences between trees of one
seed. `kin_never` is no comparison with `flat`, whose leaves have no parent: there it is the share of right leaves.
"""

import argparse
import json
import pathlib
import time

import numpy as np

TREES = ("natural", "flat", "shuffled")
SETTINGS = ("labelled", "boxes_epochs", "epochs")  # of the recipe, where they are other than its own
TOLD = ("map50_boxed", "map50_never", "map_never", "kin_never")


def train(things, tree, seed, options):
    """One record: the recipe's figures of one way and seed."""
    import keras

    from dmkeras.parts import detection_training
    from training import yolo9000

    keras.utils.set_random_seed(seed)
    recipe = yolo9000.recipe(things=things, tree=tree, tree_seed=seed, **options)
    start, busy = time.perf_counter(), time.process_time()
    model = detection_training.trained(recipe, recipe.epochs, seed)
    took = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - busy}
    return {"things": things, "tree": tree, "seed": seed, **options, **took, **recipe.evaluate(model)}


def kind(line):
    """What a run is of, but for its tree and seed: its things, and its settings in words."""
    return " ".join([line["things"], *(f"{name} {line[name]}" for name in SETTINGS if name in line)])


def report(lines):
    """Prints a table for each kind of runs."""
    for name in sorted(set(map(kind, lines))):
        found = {tree: {} for tree in TREES}
        for line in lines:
            if kind(line) == name:
                found[line["tree"]][line["seed"]] = [line[key] for key in TOLD]
        print(f"\n{name}", f"| tree | seeds | {' | '.join(TOLD)} |", "| --- " * (2 + len(TOLD)) + "|", sep="\n")
        for tree, runs in found.items():
            if runs:
                print(f"| {tree} | {len(runs)} | {' | '.join(cells(list(runs.values())))} |")
        for tree in TREES[1:]:
            both = sorted(set(found["natural"]) & set(found[tree]))
            if both:
                apart = [np.subtract(found["natural"][seed], found[tree][seed]) for seed in both]
                print(f"| natural - {tree} | {len(both)} | {' | '.join(cells(apart))} |")


def cells(rows):
    """mean +- standard error, of each column; of one row there is no error to tell."""
    rows = np.array(rows)
    if len(rows) == 1:
        return [f"{value:.3f}" for value in rows[0]]
    errors = rows.std(0, ddof=1) / np.sqrt(len(rows))
    return [f"{mean:.3f} +- {error:.3f}" for mean, error in zip(rows.mean(0), errors)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--things", choices=("colours", "textures", "garments"), default="colours")
    parser.add_argument("--trees", choices=TREES, nargs="+", default=TREES)
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1, 2))
    for flag in ("--labelled", "--boxes-epochs", "--epochs"):
        parser.add_argument(flag, type=int, help="of the recipe, other than its own")
    parser.add_argument("--data-dir", help="of Fashion-MNIST and MNIST as TFDS prepared them")
    parser.add_argument("--log", type=pathlib.Path, default=pathlib.Path("benchmarks/logs/yolo9000.jsonl"))
    parser.add_argument("--report", action="store_true", help="print what the log tells, train nothing")
    args = parser.parse_args()
    lines = [json.loads(line) for line in args.log.read_text().splitlines()] if args.log.exists() else []
    known = {(kind(line), line["tree"], line["seed"]) for line in lines}
    options = {"data_dir": args.data_dir} if args.data_dir else {}
    options |= {name: vars(args)[name] for name in SETTINGS if vars(args)[name]}
    for seed in () if args.report else args.seeds:
        for tree in args.trees:
            if (kind({"things": args.things, **options}), tree, seed) not in known:
                lines.append(train(args.things, tree, seed, options))
                lines[-1].pop("data_dir", None)
                args.log.parent.mkdir(parents=True, exist_ok=True)
                with open(args.log, "a") as log:
                    log.write(json.dumps(lines[-1]) + "\n")
    report(lines)


if __name__ == "__main__":
    main()
