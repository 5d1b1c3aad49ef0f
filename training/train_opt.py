"""Train the small OPT to speak about scenes that it is told in words: [16 facts] </s> caption, or question and answer.

Facts stand where a picture's prompt will stand. They are read with noise on their embeddings, so that the prompt's vectors,
which are no words, find a model that does not depend on the last digit. Only captions and answers count in the loss.

Two phases. Questions about what lies left or right of what need three look-ups and a comparison; at their natural share they
stay at chance while all else is learned, so the second phase asks them far more often, at a rate that rises once more.

    training/train_opt.py --out DIR     killed, it goes on from its last checkpoint
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import loop  # first: it sets how PyTorch's threads wait
import torch

import texts
from language import QUESTION_WEIGHTS, new_opt, open_tokenizer, pack, packed_logits, prompt_and_answer, right_answers, text_loss
from texts import Told

FIRST_PHASE, STEPS = 4000, 8000
SIDES = {"count": 2, "exist": 1, "colour": 0.4, "category": 0.7, "total": 0.7, "more": 1, "where": 4, "side": 8}
NOISE = 0.25  # of the embeddings' own deviation


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--batch", type=int, default=48)
    options = parser.parse_args()
    tokenizer = open_tokenizer(options.out)
    torch.manual_seed(2)
    opt = new_opt(tokenizer)

    def read(scenes: list[Told], rng: random.Random) -> torch.Tensor:
        facts = [" " + " ".join(texts.facts(scene, rng)) for scene in scenes]
        return torch.tensor(tokenizer(facts, add_special_tokens=False).input_ids)

    def scene_with_sides(rng: random.Random) -> Told:
        while True:
            scene = texts.imagine(rng)
            if texts.question(scene, "side", rng) is not None:
                return scene

    def step_loss(step: int):
        rng = random.Random(f"opt {step}")
        torch.manual_seed(step)
        second = step >= FIRST_PHASE
        scenes = [scene_with_sides(rng) if second and rng.random() < 0.6 else texts.imagine(rng) for _ in range(options.batch)]
        facts = read(scenes, rng)
        packed = pack(tokenizer, [prompt_and_answer(scene, rng, SIDES if second else QUESTION_WEIGHTS) for scene in scenes])
        words = opt.get_input_embeddings()(facts)
        noisy = words + NOISE * words.detach().std() * torch.randn_like(words)
        with torch.autocast("cpu", torch.bfloat16):
            logits = packed_logits(opt, noisy, packed)
        total = text_loss(logits, packed.targets)
        return total, {"loss": total}

    @torch.no_grad()
    def look():
        opt.eval()
        rng = random.Random("opt dev")
        scenes = [texts.imagine(rng) for _ in range(400)]
        prefix = opt.get_input_embeddings()(read(scenes, rng))
        shares = {}
        packed = pack(tokenizer, [[("", f" {texts.caption(scene)}")] for scene in scenes])
        shares["caption"] = float(right_answers(opt, prefix, packed).nanmean())
        for kind in texts.QUESTION_KINDS:
            asked = [texts.question(scene, kind, rng) for scene in scenes]
            rows = [i for i, each in enumerate(asked) if each is not None]
            packed = pack(tokenizer, [[(texts.ask(asked[i][1], rng), f" {asked[i][2]}")] for i in rows])
            shares[kind] = round(float(right_answers(opt, prefix[rows], packed).nanmean()), 3)
        opt.train()
        return {"right": shares}

    for steps in (FIRST_PHASE, STEPS):
        loop.train(
            name="opt",
            out=options.out,
            module=opt,
            inner=loop.matrices(opt.model.decoder.layers),
            steps=steps,
            step_loss=step_loss,
            look=look,
            look_every=500,
            decay=0.01,
        )
    opt.half().save_pretrained(options.out / "opt-model")


if __name__ == "__main__":
    main()
