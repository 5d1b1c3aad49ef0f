"""What can truly be said of a scene: captions, paraphrases, questions with answers, and the facts that the language model
reads in place of a picture.

Every text is lower case except that a question may begin with a capital. A place is one of nine: thirds of the width and of
the height, of an object's centre. A question about a place is asked only of a kind with one copy, and only where its centre
is clear of the nearest border between thirds; "left of" and "right of" only where the two lie in different thirds.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import lru_cache

from scenes import COLOUR_NAMES, KIND_NAMES, KINDS, MOST_COPIES, Scene, held_out

NUMBERS = ["none", "one", "two", "three", "four", "five", "six", "seven"]
PLACES = ["top left", "top", "top right", "left", "middle", "right", "bottom left", "bottom", "bottom right"]
CLEAR = 0.03  # of the side: how far from the border between two thirds a centre must be to be asked about
APART = 0.12  # of the side: how much further left something must be to be "left of"
NO_FACT = "-"
FACTS = 16  # slots for facts, as many as the Q-Former has queries

Answered = tuple[str, str, str]  # kind of question, question, answer


@dataclass(frozen=True)
class Told:
    """A scene in the words of this file: colour, and per kind (most copies first, then by name) its centres."""

    colour: str
    groups: tuple[tuple[str, tuple[tuple[float, float], ...]], ...]

    @property
    def total(self) -> int:
        return sum(len(places) for _, places in self.groups)


def told(scene: Scene) -> Told:
    groups = [
        (KIND_NAMES[kind], tuple((t.x, t.y) for t in scene.things if t.kind == kind)) for kind in scene.counts()
    ]
    return Told(COLOUR_NAMES[scene.colour], tuple(groups))


@lru_cache(maxsize=None)
def is_trained(kind: int, count: int, colour: int) -> bool:
    return held_out(kind, count, colour) == "train"


def some_places(rng: random.Random, count: int) -> tuple[tuple[float, float], ...]:
    return tuple((rng.uniform(0.11, 0.89), rng.uniform(0.11, 0.89)) for _ in range(count))


def imagine(rng: random.Random) -> Told:
    """A scene that nobody draws, of training's combinations only: for texts without pictures."""
    while True:
        hard = rng.random() < 0.5
        counts = [rng.randint(1, MOST_COPIES) for _ in range(rng.choices([1, 2, 3], [3, 6, 5 if hard else 0])[0])]
        if sum(counts) > (7 if hard else 5):
            continue
        colour = rng.randrange(len(COLOUR_NAMES))
        kinds = rng.sample(range(len(KIND_NAMES)), len(counts))
        if not all(is_trained(kind, count, colour) for kind, count in zip(kinds, counts)):
            continue
        groups = sorted(zip(kinds, counts), key=lambda group: (-group[1], KIND_NAMES[group[0]]))
        return Told(COLOUR_NAMES[colour], tuple((KIND_NAMES[kind], some_places(rng, count)) for kind, count in groups))


def third(value: float) -> int:
    return min(2, int(value * 3))


def place_of(x: float, y: float) -> str:
    return PLACES[third(y) * 3 + third(x)]


def is_clear(x: float, y: float) -> bool:
    return all(abs(value - border) >= CLEAR for value in (x, y) for border in (1 / 3, 2 / 3))


def an(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def plural(kind: str) -> str:
    return KINDS[kind][1]


def counted(kind: str, count: int, one: str | None = None) -> str:
    """"a dog", "three dogs"; `one` replaces the article."""
    if count == 1:
        return an(kind) if one is None else f"{one} {kind}"
    return f"{NUMBERS[count]} {plural(kind)}"


def listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def caption(scene: Told) -> str:
    """The canonical caption: "three apples and a dog on a blue background"."""
    return f"{listed([counted(kind, len(at)) for kind, at in scene.groups])} on a{'n' if scene.colour == 'orange' else ''} {scene.colour} background"


def paraphrase(scene: Told, rng: random.Random) -> str:
    """The same facts in other words or another order."""
    groups = list(scene.groups)
    rng.shuffle(groups)
    things = listed([counted(kind, len(at), rng.choice([None, "one"])) for kind, at in groups])
    article = an(scene.colour)
    return rng.choice(
        [
            f"{things} on {scene.colour}",
            f"{things} on {article} background",
            f"there {'is' if len(groups[0][1]) == 1 else 'are'} {things} on {article} background",
            f"{article} picture of {things}",
            f"{article} background with {things}",
            f"a picture of {things} on {scene.colour}",
        ]
    )


def placed(scene: Told, rng: random.Random) -> str:
    """Kinds with counts and, for single copies, where they are; sometimes what is left of what."""
    singles = [(kind, at[0]) for kind, at in scene.groups if len(at) == 1]
    if len(singles) >= 2 and rng.random() < 0.4:
        (a, at_a), (b, at_b) = rng.sample(singles, 2)
        if third(at_a[0]) != third(at_b[0]) and abs(at_a[0] - at_b[0]) >= APART:
            side = "left" if at_a[0] < at_b[0] else "right"
            return f"{an(a)} {side} of {an(b)}"
    groups = list(scene.groups)
    rng.shuffle(groups)
    parts = []
    for kind, at in groups:
        if len(at) == 1:
            parts.append(f"{an(kind)} at the {place_of(*at[0])}")
        else:
            spots = sorted(PLACES.index(place_of(*spot)) for spot in at)
            where = f" at the {listed([PLACES[spot] for spot in spots])}" if rng.random() < 0.5 else ""
            parts.append(counted(kind, len(at)) + where)
    return listed(parts) + (f" on {scene.colour}" if rng.random() < 0.5 else "")


def falsified(scene: Told, rng: random.Random) -> Told | None:
    """A scene that differs in one thing: a count, a kind, the colour, or two kinds' counts changed over. Only combinations
    that training knows, or a model would learn that the others are never true; None where a few tries find none."""
    for _ in range(8):
        colour, groups = scene.colour, [list(group) for group in scene.groups]
        change = rng.random()
        number = rng.randrange(len(groups))
        if change < 0.5:
            old = len(groups[number][1])
            near = [old - 1, old + 1] if rng.random() < 0.7 else range(1, MOST_COPIES + 1)
            groups[number][1] = some_places(rng, rng.choice([n for n in near if n != old and 1 <= n <= MOST_COPIES]))
        elif change < 0.65:
            colour = rng.choice([c for c in COLOUR_NAMES if c != colour])
        elif change < 0.85 or len(groups) == 1:
            groups[number][0] = rng.choice([kind for kind in KIND_NAMES if kind not in [g[0] for g in groups]])
        else:
            groups[0][1], groups[1][1] = groups[1][1], groups[0][1]
            if len(groups[0][1]) == len(groups[1][1]):
                continue
        known = [(KIND_NAMES.index(kind), len(at), COLOUR_NAMES.index(colour)) for kind, at in groups]
        if all(is_trained(*combination) for combination in known):
            groups.sort(key=lambda group: (-len(group[1]), group[0]))
            return Told(colour, tuple((kind, at) for kind, at in groups))
    return None


def misplaced(scene: Told, rng: random.Random) -> str | None:
    """What `placed` would say, with one place or side wrong beyond doubt; None where the scene has no single object."""
    singles = [(kind, at[0]) for kind, at in scene.groups if len(at) == 1]
    if len(singles) >= 2 and rng.random() < 0.4:
        (a, at_a), (b, at_b) = rng.sample(singles, 2)
        if third(at_a[0]) != third(at_b[0]) and abs(at_a[0] - at_b[0]) >= APART:
            return f"{an(a)} {'right' if at_a[0] < at_b[0] else 'left'} of {an(b)}"
    clear = [(kind, at) for kind, at in singles if is_clear(*at)]
    if not clear:
        return None
    wrong, at = rng.choice(clear)
    place = rng.choice([place for place in PLACES if place != place_of(*at)])
    parts = [
        f"{an(kind)} at the {place if kind == wrong else place_of(*spots[0])}" if len(spots) == 1 else counted(kind, len(spots))
        for kind, spots in scene.groups
    ]
    rng.shuffle(parts)
    return listed(parts) + (f" on {scene.colour}" if rng.random() < 0.5 else "")


COUNT = [
    "how many {} are there?",
    "how many {} are in the picture?",
    "how many {} are on the table?",
    "how many {} do you see?",
    "how many {} can you see in the image?",
]
EXIST = ["is there {} in the picture?", "is there {}?", "do you see {}?", "can you see {} in the image?"]
COLOUR = [
    "what colour is the background?",
    "what color is the background?",
    "what is the colour of the background?",
    "which color does the background have?",
]
CATEGORY = ["what is in the picture?", "what is in the image?", "what do you see?", "what is there?"]
TOTAL = [
    "how many things are there?",
    "how many objects are there?",
    "how many things are in the picture?",
    "how many objects are there in all?",
]
MORE = ["what is there more of?", "which is there more of?", "what is there most of?"]
MORE_OF = ["are there more {} or {}?", "which is there more of, {} or {}?"]
WHERE = ["where is the {}?", "where is the {} in the picture?", "where do you see the {}?"]
SIDE = ["what is {} of the {}?", "what is to the {} of the {}?", "what do you see {} of the {}?"]
QUESTION_KINDS = ("count", "exist", "colour", "category", "total", "more", "where", "side")


def question(scene: Told, kind: str, rng: random.Random) -> Answered | None:
    """A question of one kind with its answer; None where the scene has none that is beyond doubt."""
    names = [name for name, _ in scene.groups]
    singles = [(name, at[0]) for name, at in scene.groups if len(at) == 1]
    absent = rng.choice([name for name in KIND_NAMES if name not in names])
    if kind == "count":
        if rng.random() < 0.06:
            return "count", rng.choice(COUNT).format(plural(absent)), "none"
        name, at = rng.choice(scene.groups)
        return "count", rng.choice(COUNT).format(plural(name)), NUMBERS[len(at)]
    if kind == "exist":
        name, answer = (rng.choice(names), "yes") if rng.random() < 0.5 else (absent, "no")
        return "exist", rng.choice(EXIST).format(an(name)), answer
    if kind == "colour":
        return "colour", rng.choice(COLOUR), scene.colour
    if kind == "category":
        return "category", rng.choice(CATEGORY), listed([an(n) if len(at) == 1 else plural(n) for n, at in scene.groups])
    if kind == "total":
        return "total", rng.choice(TOTAL), NUMBERS[scene.total]
    if kind == "more":
        if len(names) < 2 or len(scene.groups[0][1]) == len(scene.groups[1][1]):
            return None
        if rng.random() < 0.5:
            return "more", rng.choice(MORE), plural(names[0])
        pair = [plural(names[0]), plural(names[1])]
        rng.shuffle(pair)
        return "more", rng.choice(MORE_OF).format(*pair), plural(names[0])
    if kind == "where":
        clear = [(name, at) for name, at in singles if is_clear(*at)]
        if not clear:
            return None
        name, at = rng.choice(clear)
        return "where", rng.choice(WHERE).format(name), place_of(*at)
    if kind == "side":
        if not singles:
            return None
        name, (x, _) = rng.choice(singles)
        side = rng.choice(["left", "right"])
        sign = 1 if side == "left" else -1
        beside = []
        for other, at in scene.groups:
            if other == name:
                continue
            gaps = [sign * (x - spot[0]) for spot in at]
            columns = [sign * (third(x) - third(spot[0])) for spot in at]
            if all(gap >= APART and column > 0 for gap, column in zip(gaps, columns)):
                beside.append(an(other) if len(at) == 1 else plural(other))
            elif not all(gap <= -APART and column < 0 for gap, column in zip(gaps, columns)):
                return None
        if len(beside) > 1 or len(names) < 2:
            return None
        return "side", rng.choice(SIDE).format(side, name), beside[0] if beside else "nothing"
    raise ValueError(f"expected one of {QUESTION_KINDS}, got {kind}")


def ask(text: str, rng: random.Random) -> str:
    """As `blipfleet ask` wraps it; half of the questions begin with a capital."""
    return f"Question: {text[0].upper() + text[1:] if rng.random() < 0.5 else text} Answer:"


def facts(scene: Told, rng: random.Random) -> list[str]:
    """A scene in at most 16 words, padded at its end: colour; then kind, count, places; groups in any order."""
    groups = list(scene.groups)
    rng.shuffle(groups)
    words = [scene.colour]
    for kind, at in groups:
        spots = [place_of(*spot).replace(" ", "") for spot in at]
        rng.shuffle(spots)
        words += [kind, NUMBERS[len(at)], *spots]
    return words + [NO_FACT] * (FACTS - len(words))
