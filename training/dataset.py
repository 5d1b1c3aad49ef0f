"""Scenes of a split, drawn once into files that training maps into memory."""

from __future__ import annotations

import time
from multiprocessing import Pool
from pathlib import Path

import numpy as np

from scenes import SIDE, Scene, draw_scene, training_picture

MOST_THINGS = 7

# Per scene: the picture, the background's colour, and per object its kind (255: no object), centre and size (1/255 of the side).
SHAPES = {
    "picture": (SIDE, SIDE, 3),
    "colour": (),
    "kind": (MOST_THINGS,),
    "place": (MOST_THINGS, 3),
}
TYPES = {"picture": np.uint8, "colour": np.uint8, "kind": np.uint8, "place": np.float32}


def record_of(scene: Scene) -> dict[str, np.ndarray]:
    kind = np.full(MOST_THINGS, 255, dtype=np.uint8)
    place = np.zeros((MOST_THINGS, 3), dtype=np.float32)
    for i, thing in enumerate(scene.things):
        kind[i], place[i] = thing.kind, (thing.x, thing.y, thing.size)
    return {"colour": np.uint8(scene.colour), "kind": kind, "place": place}


def make_one(job: tuple[str, int]) -> dict[str, np.ndarray]:
    split, index = job
    scene = draw_scene(split, index)
    return {"picture": training_picture(scene, index), **record_of(scene)}


def scenes_of(split: str, number: int, folder: Path) -> dict[str, np.ndarray]:
    """The first `number` scenes of a split: name -> (number, ...) memory-mapped array. Drawn on the first call."""
    folder = folder / f"{split}-{number}"
    if not (folder / "done").exists():
        folder.mkdir(parents=True, exist_ok=True)
        files = {
            name: np.lib.format.open_memmap(folder / f"{name}.npy", "w+", TYPES[name], (number, *shape))
            for name, shape in SHAPES.items()
        }
        started = time.time()
        with Pool() as pool:
            jobs = ((split, i) for i in range(number))
            for i, made in enumerate(pool.imap(make_one, jobs, chunksize=64)):
                for name, value in made.items():
                    files[name][i] = value
                if (i + 1) % 10000 == 0:
                    print(f"{split}: {i + 1} of {number} scenes, {(i + 1) / (time.time() - started):.0f}/s", flush=True)
        for file in files.values():
            file.flush()
        (folder / "done").touch()
    return {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in SHAPES}
