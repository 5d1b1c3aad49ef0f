"""What the frozen vision tower makes of every training picture, computed once and kept as a file."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from transformers import Blip2VisionModel

from dataset import scenes_of
from train_vit import CONFIG, GRID, to_pixels

TOKENS = GRID * GRID + 1


def open_vit(out: Path) -> Blip2VisionModel:
    """The frozen tower as it ships: weights rounded to f16, computed in f32."""
    vit = Blip2VisionModel.from_pretrained(out / "vit", dtype=torch.float32, attn_implementation="eager")
    return vit.eval().requires_grad_(False)


@torch.no_grad()
def features_of(split: str, number: int, out: Path) -> np.ndarray:
    """(number, 65, 192) f16, memory-mapped; computed on the first call."""
    path = out / f"{split}-{number}" / "features.npy"
    done = path.with_suffix(".done")
    if not done.exists():
        pictures = scenes_of(split, number, out)["picture"]
        vit = open_vit(out)
        file = np.lib.format.open_memmap(path, "w+", np.float16, (number, TOKENS, CONFIG.hidden_size))
        started = time.time()
        for start in range(0, number, 128):
            with torch.autocast("cpu", torch.bfloat16, enabled=False):
                file[start : start + 128] = vit(pixel_values=to_pixels(pictures[start : start + 128])).last_hidden_state.half()
            if start % 12800 == 0 and start:
                print(f"features of {split}: {start} of {number}, {start / (time.time() - started):.0f}/s", flush=True)
        file.flush()
        done.touch()
    return np.load(path, mmap_mode="r")


def features_batch(features: np.ndarray, rows: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(features[rows].astype(np.float32))
