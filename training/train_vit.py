"""Train the small vision tower on rendered scenes, with heads that say what each patch shows.

The tower is the reference's own Blip2VisionModel. Linear heads, thrown away afterwards, teach it. Asked of every patch:
which kind covers it, and which kind has its centre in it. Asked of covered patches: how many copies of that kind the scene
has, and where the centre of the object is. Asked of the class token: the background's colour. Counts are asked of patches
and not of the class token, because a head on the class token learns which combinations never occur in training.

    training/train_vit.py --out DIR [--steps N]     killed, it goes on from its last checkpoint
"""

from __future__ import annotations

import argparse
from pathlib import Path

import loop  # first: it sets how PyTorch's threads wait
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from transformers import Blip2VisionConfig, Blip2VisionModel

from dataset import scenes_of
from scenes import COLOURS, KINDS, MOST_COPIES, SIDE

PATCH = 14
GRID = SIDE // PATCH
NOTHING = len(KINDS)
MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073])
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711])
SCENES = 100_000

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


def labels(kind: torch.Tensor, place: torch.Tensor) -> dict[str, torch.Tensor]:
    """What is true of each patch.

    kind (batch, 7) with 255 for no object, place (batch, 7, 3) as x, y, size.
    Returns cover and centre (batch, 64) with NOTHING where there is none, copies (batch, 64) and whereabouts (batch, 64, 2)
    that hold for covered patches only.
    """
    middles = (torch.arange(GRID) + 0.5) / GRID
    patch_x, patch_y = middles.repeat(GRID), middles.repeat_interleave(GRID)
    x, y, size = (place[..., i, None] for i in range(3))  # (batch, 7, 1)
    there = (kind != 255)[..., None]
    distance = (patch_x - x) ** 2 + (patch_y - y) ** 2  # (batch, 7, 64)
    distance = torch.where(there & (distance < (0.46 * size) ** 2), distance, torch.inf)
    nearest, thing = distance.min(1)  # (batch, 64)
    covered = torch.isfinite(nearest)
    same = kind[:, :, None] == kind[:, None, :]
    copies_of = (same & there).sum(1)  # (batch, 7): copies of each object's kind
    cover = torch.where(covered, kind.gather(1, thing), NOTHING)
    copies = copies_of.gather(1, thing)
    whereabouts = place[..., :2].gather(1, thing[..., None].expand(-1, -1, 2))
    cell = (y[..., 0] * GRID).long().clamp(max=GRID - 1) * GRID + (x[..., 0] * GRID).long().clamp(max=GRID - 1)
    centre = torch.full((len(kind), GRID * GRID + 1), NOTHING)
    cell = torch.where(there[..., 0], cell, GRID * GRID)
    centre.scatter_(1, cell, kind)
    return {"cover": cover, "centre": centre[:, : GRID * GRID], "copies": copies, "whereabouts": whereabouts}


class Tower(nn.Module):
    """The vision tower and its heads; forward takes pixels (batch, 3, 112, 112)."""

    def __init__(self) -> None:
        super().__init__()
        self.vit = Blip2VisionModel(CONFIG)
        self.vit.set_attn_implementation("eager")  # on CPUs its backward pass is the faster one, by four times
        for parameter in (self.vit.embeddings.class_embedding, self.vit.embeddings.position_embedding):
            nn.init.trunc_normal_(parameter, std=0.02)
        width = CONFIG.hidden_size
        self.cover = nn.Linear(width, len(KINDS) + 1)
        self.centre = nn.Linear(width, len(KINDS) + 1)
        self.copies = nn.Linear(width, MOST_COPIES)
        self.whereabouts = nn.Linear(width, 2)
        self.colour = nn.Linear(width, len(COLOURS))

    def forward(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        features = self.vit(pixel_values=pixels).last_hidden_state  # (batch, 65, 192)
        patches = features[:, 1:]
        said = {name: getattr(self, name)(patches) for name in ("cover", "centre", "copies", "whereabouts")}
        return said | {"colour": self.colour(features[:, 0])}


def to_pixels(pictures: np.ndarray) -> torch.Tensor:
    """(batch, 112, 112, 3) u8 -> (batch, 3, 112, 112) f32, normalised as the image processor does it."""
    scaled = torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2).float() / 255
    return (scaled - MEAN[None, :, None, None]) / STD[None, :, None, None]


def batch_of(data: dict[str, np.ndarray], rows: np.ndarray) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    kind = torch.from_numpy(data["kind"][rows].astype(np.int64))
    truth = labels(kind, torch.from_numpy(data["place"][rows]))
    truth["colour"] = torch.from_numpy(data["colour"][rows].astype(np.int64))
    return to_pixels(data["picture"][rows]), truth


def loss_of(said: dict[str, torch.Tensor], truth: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    said = {name: guess.float() for name, guess in said.items()}
    centre_weight = torch.ones(NOTHING + 1)
    centre_weight[:NOTHING] = 4.0
    here = truth["cover"] != NOTHING
    parts = {
        "cover": F.cross_entropy(said["cover"].flatten(0, 1), truth["cover"].flatten()),
        "centre": F.cross_entropy(said["centre"].flatten(0, 1), truth["centre"].flatten(), weight=centre_weight),
        "copies": F.cross_entropy(said["copies"][here], truth["copies"][here] - 1),
        "whereabouts": F.smooth_l1_loss(said["whereabouts"][here], truth["whereabouts"][here], beta=0.05),
        "colour": F.cross_entropy(said["colour"], truth["colour"]),
    }
    total = parts["cover"] + 2 * parts["centre"] + parts["copies"] + 2 * parts["whereabouts"] + 0.25 * parts["colour"]
    return total, parts


@torch.no_grad()
def evaluate(tower: nn.Module, data: dict[str, np.ndarray]) -> dict[str, float]:
    """Shares that are right: scenes' kinds and counts as the centre head has them; scenes in which every covered patch,
    by majority of each kind's, says the right number of copies; colours."""
    tower.eval()
    centres = copies = colours = 0
    number = len(data["colour"])
    for start in range(0, number, 250):
        pixels, truth = batch_of(data, np.arange(start, min(start + 250, number)))
        said = tower(pixels)
        colours += int((said["colour"].argmax(-1) == truth["colour"]).sum())
        for i in range(len(pixels)):
            kinds = [np.bincount(each[i].numpy(), minlength=NOTHING + 1) for each in (truth["centre"], said["centre"].argmax(-1))]
            centres += np.array_equal(*kinds)
            cover, told = truth["cover"][i], said["copies"][i].argmax(-1) + 1
            copies += all(
                int(told[cover == kind].mode().values) == int(truth["copies"][i][cover == kind][0])
                for kind in cover.unique()
                if kind != NOTHING
            )
    tower.train()
    return {"centres": centres / number, "copies": copies / number, "colour": colours / number}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--batch", type=int, default=64)
    options = parser.parse_args()

    data = scenes_of("train", SCENES, options.out)
    dev = {split: scenes_of(split, 1000, options.out) for split in ("dev-comb", "dev-iid")}
    torch.manual_seed(1)
    tower = Tower()

    def step_loss(step: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        rows = np.sort(np.random.default_rng([7, step]).integers(SCENES, size=options.batch))
        pixels, truth = batch_of(data, rows)
        with torch.autocast("cpu", torch.bfloat16):
            said = tower(pixels)
        return loss_of(said, truth)

    loop.train(
        name="vit",
        out=options.out,
        module=tower,
        inner=loop.matrices(tower.vit.encoder),
        steps=options.steps,
        step_loss=step_loss,
        look=lambda: {split: evaluate(tower, dev[split]) for split in dev},
        look_every=1000,
    )
    tower.vit.half().save_pretrained(options.out / "vit")


if __name__ == "__main__":
    main()
