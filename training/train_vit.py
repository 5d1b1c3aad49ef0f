"""Train the small vision tower on rendered scenes, with heads that say what each patch shows.

The tower is the reference's own Blip2VisionModel. Four linear heads, thrown away afterwards, teach it: which kind
covers this patch, which kind has its centre in this patch, how many of that kind there are (at its centres), and the
background's colour (from the class token). Counts are asked of patches and not of the class token, because a head on
the class token learns which combinations never occur in training.

    training/train_vit.py --out DIR [--steps 14000]     killed, it goes on from its last checkpoint
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from multiprocessing import Pool
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from transformers import Blip2VisionConfig, Blip2VisionModel

from scenes import COLOURS, KINDS, MOST_COPIES, SIDE, Scene, draw_scene, training_picture

PATCH = 14
GRID = SIDE // PATCH
NOTHING = len(KINDS)
MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073])
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711])

CONFIG = Blip2VisionConfig(
    hidden_size=192,
    intermediate_size=384,
    num_hidden_layers=6,
    num_attention_heads=6,
    image_size=SIDE,
    patch_size=PATCH,
    hidden_act="gelu",
    layer_norm_eps=1e-6,
    initializer_range=0.02,  # the class default of 1e-10 is for loading, not for training
    qkv_bias=True,
)


def labels(scene: Scene) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per patch (64): covering kind, kind whose centre lies there, and how many of that kind the scene has."""
    cover = np.full((GRID, GRID), NOTHING, dtype=np.uint8)
    centre = np.full((GRID, GRID), NOTHING, dtype=np.uint8)
    copies = np.zeros((GRID, GRID), dtype=np.uint8)
    counts = scene.counts()
    middles = (np.arange(GRID) + 0.5) / GRID
    for thing in scene.things:
        near = (middles[None, :] - thing.x) ** 2 + (middles[:, None] - thing.y) ** 2 < (0.46 * thing.size) ** 2
        cover[near] = thing.kind
        row, column = min(int(thing.y * GRID), GRID - 1), min(int(thing.x * GRID), GRID - 1)
        centre[row, column] = thing.kind
        copies[row, column] = counts[thing.kind]
    return cover.reshape(-1), centre.reshape(-1), copies.reshape(-1)


def make_one(job: tuple[str, int]) -> tuple[np.ndarray, ...]:
    split, index = job
    scene = draw_scene(split, index)
    return (training_picture(scene, index), *labels(scene), np.uint8(scene.colour))


def scenes_of(split: str, number: int, folder: Path) -> dict[str, np.ndarray]:
    """Render once, keep as files, map them afterwards."""
    folder = folder / f"{split}-{number}"
    shapes = {"picture": (SIDE, SIDE, 3), "cover": (GRID * GRID,), "centre": (GRID * GRID,), "copies": (GRID * GRID,), "colour": ()}
    if not (folder / "done").exists():
        folder.mkdir(parents=True, exist_ok=True)
        files = {name: np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.uint8, (number, *shape)) for name, shape in shapes.items()}
        started = time.time()
        with Pool(2) as pool:
            jobs = ((split, i) for i in range(number))
            for i, made in enumerate(pool.imap(make_one, jobs, chunksize=64)):
                for file, value in zip(files.values(), made):
                    file[i] = value
                if (i + 1) % 10000 == 0:
                    print(f"{split}: {i + 1} of {number} scenes, {(i + 1) / (time.time() - started):.0f}/s", flush=True)
        for file in files.values():
            file.flush()
        (folder / "done").touch()
    return {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in shapes}


class Tower(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.vit = Blip2VisionModel(CONFIG)
        width = CONFIG.hidden_size
        with torch.no_grad():
            embeddings = self.vit.embeddings
            for parameter in (embeddings.class_embedding, embeddings.position_embedding):
                nn.init.trunc_normal_(parameter, std=0.02)
        self.cover = nn.Linear(width, len(KINDS) + 1)
        self.centre = nn.Linear(width, len(KINDS) + 1)
        self.copies = nn.Linear(width, MOST_COPIES)
        self.colour = nn.Linear(width, len(COLOURS))

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        features = self.vit(pixel_values=pixels).last_hidden_state  # (batch, 65, 192)
        patches = features[:, 1:]
        return self.cover(patches), self.centre(patches), self.copies(patches), self.colour(features[:, 0])


def to_pixels(pictures: np.ndarray) -> torch.Tensor:
    scaled = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
    return (scaled - MEAN[None, :, None, None]) / STD[None, :, None, None]


def batch_of(data: dict[str, np.ndarray], rows: np.ndarray) -> tuple[torch.Tensor, ...]:
    rows = np.sort(rows)
    return (to_pixels(data["picture"][rows]), *(torch.from_numpy(data[name][rows].astype(np.int64)) for name in ("cover", "centre", "copies", "colour")))


def loss_of(tower: Tower, batch: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, dict[str, float]]:
    pixels, cover, centre, copies, colour = batch
    with torch.autocast("cpu", torch.bfloat16):
        guesses = tower(pixels)
    said_cover, said_centre, said_copies, said_colour = (guess.float() for guess in guesses)
    centre_weight = torch.ones(NOTHING + 1)
    centre_weight[:NOTHING] = 4.0
    here = centre != NOTHING
    parts = {
        "cover": F.cross_entropy(said_cover.flatten(0, 1), cover.flatten()),
        "centre": F.cross_entropy(said_centre.flatten(0, 1), centre.flatten(), weight=centre_weight),
        "copies": F.cross_entropy(said_copies[here], copies[here] - 1),
        "colour": F.cross_entropy(said_colour, colour),
    }
    total = parts["cover"] + 2 * parts["centre"] + 0.5 * parts["copies"] + 0.25 * parts["colour"]
    return total, {name: float(part) for name, part in parts.items()}


@torch.no_grad()
def evaluate(tower: Tower, data: dict[str, np.ndarray]) -> dict[str, float]:
    """Shares of scenes whose kinds and counts, read off the centre head, are all right; of right copies; of right colours."""
    tower.eval()
    right = copies_right = copies_all = colours = 0
    number = len(data["colour"])
    for start in range(0, number, 250):
        pixels, _, centre, copies, colour = batch_of(data, np.arange(start, min(start + 250, number)))
        _, said_centre, said_copies, said_colour = tower(pixels)
        for truth, said in zip(centre.numpy(), said_centre.argmax(-1).numpy()):
            right += np.array_equal(np.bincount(truth, minlength=NOTHING + 1), np.bincount(said, minlength=NOTHING + 1))
        here = centre != NOTHING
        copies_right += int((said_copies.argmax(-1)[here] == copies[here] - 1).sum())
        copies_all += int(here.sum())
        colours += int((said_colour.argmax(-1) == colour).sum())
    tower.train()
    return {"scenes": right / number, "copies": copies_right / copies_all, "colour": colours / number}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=14000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--scenes", type=int, default=160000)
    parser.add_argument("--rate", type=float, default=1.2e-3)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    data = scenes_of("train", options.scenes, options.out)
    dev = {split: scenes_of(split, 1000, options.out) for split in ("dev-comb", "dev-iid")}
    torch.manual_seed(1)
    tower = Tower()
    decayed = [p for p in tower.parameters() if p.ndim > 1]
    plain = [p for p in tower.parameters() if p.ndim <= 1]
    optimiser = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}], lr=options.rate, betas=(0.9, 0.98))
    step, saved = 0, options.out / "vit-training.pt"
    if saved.exists():
        state = torch.load(saved)
        tower.load_state_dict(state["tower"])
        optimiser.load_state_dict(state["optimiser"])
        step = state["step"]
        print(f"going on from step {step}", flush=True)
    curve = options.out / "vit-curve.jsonl"
    started, first = time.time(), step
    while step < options.steps:
        warm = min(1.0, (step + 1) / 400)
        rate = options.rate * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / options.steps)))
        for group in optimiser.param_groups:
            group["lr"] = rate
        rows = np.random.default_rng([7, step]).integers(options.scenes, size=options.batch)
        total, parts = loss_of(tower, batch_of(data, rows))
        optimiser.zero_grad()
        total.backward()
        nn.utils.clip_grad_norm_(tower.parameters(), 1.0)
        optimiser.step()
        step += 1
        if step % 100 == 0:
            line = {"step": step, **{name: round(part, 4) for name, part in parts.items()}, "seconds": round((time.time() - started) / (step - first), 3)}
            if step % 1000 == 0 or step == options.steps:
                line |= {split: evaluate(tower, dev[split]) for split in dev}
            print(json.dumps(line), flush=True)
            with curve.open("a") as file:
                file.write(json.dumps(line) + "\n")
        if step % 500 == 0 or step == options.steps:
            torch.save({"tower": tower.state_dict(), "optimiser": optimiser.state_dict(), "step": step}, saved.with_suffix(".new"))
            os.replace(saved.with_suffix(".new"), saved)
    tower.vit.half().save_pretrained(options.out / "vit")


if __name__ == "__main__":
    main()
