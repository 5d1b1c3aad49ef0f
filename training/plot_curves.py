"""The curves of a training run as one picture, and as they are.

    training/plot_curves.py --out DIR --models models     writes models/curves.png and models/curves/NAME.jsonl
"""

from __future__ import annotations

import argparse
import json
import shutil
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


DEV = ("dev-comb", "dev-iid")
# title, logarithmic, [(label, curve, keys)]
PANELS = [
    ("vision tower: losses", True, [(key, "vit", (key,)) for key in ("cover", "centre", "copies", "whereabouts")]),
    ("vision tower: scenes right", False, [(f"{key} {split}", "vit", (split, key)) for split in DEV for key in ("centres", "copies")]),
    ("language model: right answers, told in words", False, [(key, "opt", ("right", key)) for key in ("caption", "count", "total", "more", "where", "side")]),
    ("stage 1: losses", True, [(key, "stage1", (key,)) for key in ("itc", "itm", "itg")]),
    ("stage 1: R@1, development scenes", False, [(f"{key} {split}", "stage1", (split, key)) for split in DEV for key in ("itc", "re-ranked")]),
    ("stage 2: unseen combinations (dev)", False, [(key, "stage2", ("dev-comb", key)) for key in ("caption", "count", "total", "more", "where", "side")]),
    ("stage 2 with and without stage 1: captions (dev)", False, [(f"{name}, {split}", f"ablation-{name}", (split, "caption")) for name in ("with", "without") for split in DEV]),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True)
    options = parser.parse_args()
    figure, axes = plt.subplots(2, 4, figsize=(20, 8), dpi=60)
    for axis in axes.flat[len(PANELS) :]:
        axis.set_axis_off()
    for axis, (title, logarithmic, shown) in zip(axes.flat, PANELS):
        for label, curve, keys in shown:
            axis.plot(*series(lines_of(options.out, curve), *keys), label=label, linewidth=1)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("step", fontsize=8)
        if logarithmic:
            axis.set_yscale("log")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(options.models / "curves.png")
    kept = options.models / "curves"
    kept.mkdir(exist_ok=True)
    for path in sorted(options.out.glob("*-curve.jsonl")):
        shutil.copyfile(path, kept / f"{path.name.removesuffix('-curve.jsonl')}.jsonl")


if __name__ == "__main__":
    main()
