"""Render the held-out scenes that the demo models are evaluated on, each with all that is true of it.

    training/render_sets.py --out DIR [--set NAME ...]

Writes for every set DIR/NAME/0000.png and so on (112 x 112), DIR/NAME/items.jsonl with a line per scene
    {"id", "image", "caption", "facts": {"kinds": {kind: count}, "colour"}, "questions": [{"kind", "question", "answer"}]}
and, when all of that is there, DIR/NAME/set.json with a digest over lines and pixels; besides DIR/words.json, the words
that captions are made of, and DIR/blind.json, what can be answered without looking. What is there and up to date stays.
Needs numpy and Pillow only.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import shutil
import sys
from importlib.metadata import version
from multiprocessing import Pool
from pathlib import Path

import numpy as np

import scenes
import texts
from blind_answers import blind_answers
from scenes import COLOUR_NAMES, KINDS, Scene, draw_scene, render, sprite

EACH = 1000  # scenes of every set
RETRIEVAL = "retrieval"
SPLITS = ("test-comb", "test-iid", "test-comb-hard", "test-iid-hard")
SETS = (*SPLITS, RETRIEVAL)
# Where retrieval takes its scenes from: combinations that training has not seen first.
RETRIEVAL_SPLITS = ("test-comb", "test-comb-hard", "test-iid", "test-iid-hard")

Numbered = tuple[str, int]  # split, index


def made_from() -> str:
    """What the sets depend on, as one digest: this code, the font, the libraries."""
    digest = hashlib.sha256()
    code = [Path(__file__).with_name(name) for name in ("scenes.py", "texts.py", "render_sets.py", "blind_answers.py")]
    for path in [*code, scenes.FONT]:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    digest.update(f"numpy {version('numpy')} pillow {version('pillow')}".encode())
    return digest.hexdigest()


def draw(numbered: Numbered) -> tuple[Numbered, Scene]:
    return numbered, draw_scene(*numbered)


def distinct(pool: Pool) -> list[tuple[Numbered, Scene]]:
    """The first test scene of each canonical caption, until there are enough."""
    found: dict[str, tuple[Numbered, Scene]] = {}
    for numbered, scene in pool.imap(draw, ((split, i) for split in RETRIEVAL_SPLITS for i in range(EACH)), chunksize=20):
        found.setdefault(texts.caption(texts.told(scene)), (numbered, scene))
        if len(found) == EACH:
            return list(found.values())
    raise SystemExit(f"{RETRIEVAL}: expected {EACH} distinct captions in {', '.join(RETRIEVAL_SPLITS)}, got {len(found)}")


def scenes_of_set(name: str, pool: Pool) -> list[tuple[Numbered, Scene]]:
    if name == RETRIEVAL:
        return distinct(pool)
    return pool.map(draw, [(name, i) for i in range(EACH)], chunksize=20)


def item_of(numbered: Numbered, scene: Scene, image: str) -> dict:
    """What is true of a scene, and one question of each kind that it allows."""
    told = texts.told(scene)
    split, index = numbered
    rng = random.Random(f"questions of {split} {index}")
    asked = [texts.question(told, kind, rng) for kind in texts.QUESTION_KINDS]
    return {
        "id": f"{split}/{index}",
        "image": image,
        "caption": texts.caption(told),
        "facts": {"kinds": {kind: len(at) for kind, at in told.groups}, "colour": told.colour},
        "questions": [dict(zip(("kind", "question", "answer"), each)) for each in asked if each is not None],
    }


def save(job: tuple[Scene, Path]) -> bytes:
    """Render a scene into a file. Returns its levels, for the digest."""
    scene, path = job
    picture = render(scene)
    picture.save(path)
    return np.asarray(picture).tobytes()


def render_set(name: str, folder: Path, source: str, pool: Pool) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    chosen = scenes_of_set(name, pool)
    names = [f"{number:04}.png" for number in range(len(chosen))]
    items = "".join(json.dumps(item_of(*each, image)) + "\n" for each, image in zip(chosen, names))
    (folder / "items.jsonl").write_text(items)
    digest = hashlib.sha256(items.encode())
    jobs = [(scene, folder / image) for (_, scene), image in zip(chosen, names)]
    for number, levels in enumerate(pool.imap(save, jobs, chunksize=20), start=1):
        digest.update(levels)
        if number % 250 == 0:
            print(f"{name}: {number} of {len(jobs)} scenes", file=sys.stderr, flush=True)
    stated = {"set": name, "scenes": len(jobs), "digest": digest.hexdigest(), "made_from": source}
    (folder / "set.json").write_text(json.dumps(stated) + "\n")


def is_made(path: Path, source: str) -> bool:
    return path.exists() and json.loads(path.read_text()).get("made_from") == source


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--set", dest="sets", action="append", choices=SETS, help="may be repeated (default: all)")
    options = parser.parse_args()
    sprite(0)  # ends here, with a sentence, where the font is missing
    source = made_from()
    options.out.mkdir(parents=True, exist_ok=True)
    wanted = [name for name in options.sets or SETS if not is_made(options.out / name / "set.json", source)]
    with Pool() as pool:
        for name in wanted:
            print(f"{name}: drawing {EACH} scenes", file=sys.stderr, flush=True)
            render_set(name, options.out / name, source, pool)
    words = {"kinds": {kind: plural for kind, (_, plural) in KINDS.items()}, "colours": COLOUR_NAMES, "numbers": texts.NUMBERS}
    (options.out / "words.json").write_text(json.dumps(words) + "\n")
    blind = options.out / "blind.json"
    if not is_made(blind, source):
        print("what can be answered without looking", file=sys.stderr, flush=True)
        blind.write_text(json.dumps({"made_from": source, **blind_answers()}) + "\n")


if __name__ == "__main__":
    main()
