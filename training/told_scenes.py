"""The scenes of a split in words, from the places that were stored beside its pictures."""

from __future__ import annotations

from pathlib import Path

from dataset import scenes_of
from scenes import COLOUR_NAMES, KIND_NAMES
from texts import Told


def told_of(split: str, number: int, folder: Path) -> list[Told]:
    data = scenes_of(split, number, folder)
    scenes = []
    for colour, kinds, places in zip(data["colour"].tolist(), data["kind"].tolist(), data["place"].tolist()):
        groups: dict[str, list[tuple[float, float]]] = {}
        for kind, (x, y, _) in zip(kinds, places):
            if kind != 255:
                groups.setdefault(KIND_NAMES[kind], []).append((x, y))
        ordered = sorted(groups.items(), key=lambda group: (-len(group[1]), group[0]))
        scenes.append(Told(COLOUR_NAMES[colour], tuple((kind, tuple(at)) for kind, at in ordered)))
    return scenes
