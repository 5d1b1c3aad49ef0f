"""The curves of a training run as one picture.

    training/plot_curves.py --out DIR --models models     writes models/curves.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def lines_of(out: Path, name: str) -> list[dict]:
    path = out / f"{name}-curve.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def series(lines: list[dict], *keys: str) -> tuple[list[int], list[float]]:
    """The steps and values of a figure that may lie some levels deep."""
    steps, values = [], []
    for line in lines:
        value = line
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        if value is not None:
            steps.append(line["step"])
            values.append(value)
    return steps, values


# title, curve, logarithmic, [(label, keys)]
PANELS = [
    ("vision tower: losses", "vit", True, [(key, (key,)) for key in ("cover", "centre", "copies", "whereabouts")]),
    ("vision tower: scenes right", "vit", False, [(f"{key} {split}", (split, key)) for split in ("dev-comb", "dev-iid") for key in ("centres", "copies")]),
    ("language model: right answers, told in words", "opt", False, [(key, ("right", key)) for key in ("caption", "count", "total", "more", "where", "side")]),
    ("stage 1: losses", "stage1", True, [(key, (key,)) for key in ("itc", "itm", "itg")]),
    ("stage 1: R@1, development scenes", "stage1", False, [(f"{key} {split}", (split, key)) for split in ("dev-comb", "dev-iid") for key in ("itc", "re-ranked")]),
    ("stage 2: unseen combinations (dev)", "stage2", False, [(key, ("dev-comb", key)) for key in ("caption", "count", "total", "more", "where", "side")]),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True)
    options = parser.parse_args()
    figure, axes = plt.subplots(2, 3, figsize=(15, 8), dpi=70)
    for axis, (title, curve, logarithmic, shown) in zip(axes.flat, PANELS):
        lines = lines_of(options.out, curve)
        for label, keys in shown:
            axis.plot(*series(lines, *keys), label=label, linewidth=1)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("step", fontsize=8)
        if logarithmic:
            axis.set_yscale("log")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(options.models / "curves.png")


if __name__ == "__main__":
    main()
