"""Stage 1 of BLIP-2: the Q-Former learns from image-text pairs with the vision tower frozen.

Three losses share one Q-Former and differ in who sees whom: ITC (queries and text apart; the best of 16 queries counts;
negatives in the batch), ITM (all see all; hard negatives), ITG (text sees queries and the text before it). Batches mix
random scenes with groups of the same kinds. ITM's negatives are, half and half, the batch's hardest by ITC and the image's
own caption with one fact changed. Pairs that may be true although they were not drawn together are no negatives.

    training/train_stage1.py --out DIR [--steps N]     killed, it goes on from its last checkpoint
"""

from __future__ import annotations

import argparse
import random
from collections import defaultdict
from pathlib import Path

import loop  # first: it sets how PyTorch's threads wait
import numpy as np
import torch
from torch.nn import functional as F

import texts
from features import features_batch, features_of
from q_former import StageOne, open_tokenizer
from texts import Told
from told_scenes import told_of
from train_vit import SCENES

MATCHED = 24  # pairs of a batch that ITM and ITG look at
TEXT_LENGTH = 40


class Batches:
    """Rows of training scenes: a part at random, a part in groups that show the same kinds."""

    def __init__(self, scenes: list[Told]) -> None:
        self.by_kinds: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for row, scene in enumerate(scenes):
            self.by_kinds[tuple(sorted(kind for kind, _ in scene.groups))].append(row)
        self.groups = [rows for rows in self.by_kinds.values() if len(rows) >= 4]
        self.number = len(scenes)

    def draw(self, rng: random.Random, batch: int) -> list[int]:
        rows: list[int] = []
        while len(rows) < batch // 2:
            group = self.groups[rng.randrange(len(self.groups))]
            rows += rng.sample(group, min(4, len(group)))
        rows += [rng.randrange(self.number) for _ in range(batch - len(rows))]
        return list(dict.fromkeys(rows))


def text_of(scene: Told, rng: random.Random) -> tuple[str, str]:
    """(sort of text, text)"""
    chance = rng.random()
    if chance < 0.6:
        return "caption", texts.caption(scene)
    if chance < 0.75:
        return "paraphrase", texts.paraphrase(scene, rng)
    return "placed", texts.placed(scene, rng)


def may_be_true(sorts: tuple[str, ...], scenes: list[Told]) -> torch.Tensor:
    """(texts, images): whether the text of one scene may be true of another's picture."""
    kinds = [{kind for kind, _ in scene.groups} for scene in scenes]
    facts = [(scene.colour, frozenset((kind, len(at)) for kind, at in scene.groups)) for scene in scenes]
    number = range(len(scenes))
    rows = [[kinds[i] <= kinds[j] if sorts[i] == "placed" else facts[i] == facts[j] for j in number] for i in number]
    return torch.tensor(rows).fill_diagonal_(False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=64)
    options = parser.parse_args()
    tokenizer = open_tokenizer(options.out)
    features = features_of("train", SCENES, options.out)
    scenes = told_of("train", SCENES, options.out)
    batches = Batches(scenes)
    dev = {split: (features_of(split, 1000, options.out), told_of(split, 1000, options.out)) for split in ("dev-comb", "dev-iid")}
    torch.manual_seed(3)
    model = StageOne(len(tokenizer))
    dec, pad = tokenizer.convert_tokens_to_ids("[DEC]"), tokenizer.pad_token_id

    def read(lines: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        made = tokenizer(lines, padding=True, truncation=True, max_length=TEXT_LENGTH, return_tensors="pt")
        return made.input_ids, made.attention_mask.float()

    def contrast(image: torch.Tensor, text: torch.Tensor, unsure: torch.Tensor):
        """ITC both ways; unsure (texts, images) pairs count neither way."""
        similarity = torch.einsum("iqd,td->tiq", image.float(), text.float()).max(-1).values
        logits = (similarity / model.log_temperature.exp()).masked_fill(unsure, -1e4)
        own = torch.arange(len(logits))
        return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2, similarity.detach()

    def false_text(scene: Told, rng: random.Random, sort: str) -> str | None:
        """A text that is false of the scene."""
        lie = texts.misplaced(scene, rng) if sort == "placed" else None
        if lie is not None:
            return lie
        other = texts.falsified(scene, rng)
        return other and (texts.caption(other) if rng.random() < 0.8 else texts.paraphrase(other, rng))

    def step_loss(step: int):
        rng = random.Random(f"stage 1 {step}")
        rows = batches.draw(rng, options.batch)
        here = [scenes[row] for row in rows]
        sorts, lines = zip(*(text_of(scene, rng) for scene in here))
        ids, mask = read(list(lines))
        seen = features_batch(features, np.array(rows))
        unsure = may_be_true(sorts, here)
        with torch.autocast("cpu", torch.bfloat16):
            image, text = model.image_vectors(seen), model.text_vectors(ids, mask)
        itc, similarity = contrast(image, text, unsure)

        chosen = rng.sample(range(len(rows)), min(MATCHED, len(rows)))
        likely = (similarity / model.log_temperature.exp().detach()).softmax(-1).masked_fill(unsure, 0)
        likely.fill_diagonal_(0)
        torch.manual_seed(step)
        other_image = torch.multinomial(likely + 1e-9 * ~unsure * ~torch.eye(len(rows), dtype=torch.bool), 1)[:, 0].tolist()
        pairs = [(i, lines[i], 1) for i in chosen] + [(other_image[i], lines[i], 0) for i in chosen]
        for i in chosen:
            lie = false_text(here[i], rng, sorts[i])
            if lie is not None:
                pairs.append((i, lie, 0))
        pair_ids, pair_mask = read([line for _, line, _ in pairs])
        truth = torch.tensor([match for _, _, match in pairs])
        said_ids, said_mask = read([lines[i] for i in chosen])
        given = torch.cat([torch.full((len(chosen), 1), dec), said_ids[:, 1:]], 1)  # [DEC] in [CLS]'s place
        with torch.autocast("cpu", torch.bfloat16):
            matched = model.match_logits(seen[[i for i, _, _ in pairs]], pair_ids, pair_mask)
            said = model.say_logits(seen[chosen], given, said_mask)
        itm = F.cross_entropy(matched.float(), truth, weight=torch.tensor([1.0, 2.0]))
        itg = F.cross_entropy(said[:, :-1].float().flatten(0, 1), given[:, 1:].flatten(), ignore_index=pad)
        return itc + 1.5 * itm + itg, {"itc": itc, "itm": itm, "itg": itg}

    @torch.no_grad()
    def look():
        model.eval()
        shares = {}
        for split, (seen, told) in dev.items():
            rows = list({texts.caption(scene): row for row, scene in enumerate(told)}.values())
            lines = [texts.caption(told[row]) for row in rows]
            image = model.image_vectors(features_batch(seen, np.array(rows)))
            text = torch.cat([model.text_vectors(*read(lines[i : i + 200])) for i in range(0, len(lines), 200)])
            similarity = torch.stack([torch.einsum("iqd,d->iq", image, one).max(-1).values for one in text])
            own = torch.arange(len(rows))
            best = similarity.topk(8).indices
            right = best[:, 0] == own
            few = range(0, len(rows), 5)
            again = []
            for i in few:
                near = best[i]
                ids, mask = read([lines[i]] * len(near))
                logits = model.match_logits(features_batch(seen, np.array(rows)[near.numpy()]), ids, mask)
                score = logits[:, 1] + similarity[i, near]
                again.append(int(near[score.argmax()]) == i)
            shares[split] = {
                "itc": round(float(right.float().mean()), 3),
                "itc of those": round(float(right[list(few)].float().mean()), 3),
                "re-ranked": round(float(np.mean(again)), 3),
                "among": len(rows),
            }
        model.train()
        return shares

    loop.train(
        name="stage1",
        out=options.out,
        module=model,
        inner=loop.matrices(model.model.qformer.encoder),
        steps=options.steps,
        step_loss=step_loss,
        look=look,
        look_every=500,
    )


if __name__ == "__main__":
    main()
