"""What can be answered without looking: the commonest answer to each question, and the commonest caption, in training's scenes.

A model that has learned to see must do better than this.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from multiprocessing import Pool

import texts
from scenes import draw_scene

SCENES = 20_000  # the first of the split that training draws


def said_of(index: int) -> tuple[str, list[texts.Answered]]:
    scene = texts.told(draw_scene("train", index))
    rng = random.Random(f"blind {index}")
    asked = [texts.question(scene, kind, rng) for kind in texts.QUESTION_KINDS]
    return texts.caption(scene), [each for each in asked if each is not None]


def commonest(counted: Counter[str]) -> str:
    """Among equals the first in the alphabet."""
    return min(counted, key=lambda text: (-counted[text], text))


def blind_answers() -> dict:
    """{"scenes", "caption", "answers": question -> answer, "kinds": kind of question -> answer where the question is new}"""
    captions: Counter[str] = Counter()
    answers: defaultdict[str, Counter[str]] = defaultdict(Counter)
    kinds: defaultdict[str, Counter[str]] = defaultdict(Counter)
    with Pool() as pool:
        for caption, asked in pool.imap(said_of, range(SCENES), chunksize=250):
            captions[caption] += 1
            for kind, question, answer in asked:
                answers[question][answer] += 1
                kinds[kind][answer] += 1
    return {
        "scenes": SCENES,
        "caption": commonest(captions),
        "answers": {question: commonest(counted) for question, counted in sorted(answers.items())},
        "kinds": {kind: commonest(counted) for kind, counted in sorted(kinds.items())},
    }
