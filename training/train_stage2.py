"""Stage 2 of BLIP-2: the Q-Former and a projection learn to speak to the frozen language model.

Per picture: a caption and a handful of questions, all behind the same 16 prompt vectors. Vision tower and language model
stay as they are. Without stage 1 (--from-scratch) the Q-Former starts from random weights: the ablation of the paper.

    training/train_stage2.py --out DIR [--steps N] [--from-scratch]     killed, it goes on from its last checkpoint
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import loop  # first: it sets how PyTorch's threads wait
import numpy as np
import torch
from torch import nn
from transformers import Blip2QFormerModel, OPTForCausalLM

import q_former
import texts
from features import features_batch, features_of
from language import open_tokenizer, pack, packed_logits, prompt_and_answer, right_answers, text_loss
from make_tokenizers import QUERIES
from q_former import StageOne
from told_scenes import told_of
from train_vit import SCENES


class Bridge(nn.Module):
    """Query tokens, a Q-Former that reads no text, and the projection into the language model's space."""

    def __init__(self, language_width: int) -> None:
        super().__init__()
        self.query_tokens = nn.Parameter(torch.randn(1, QUERIES, q_former.WIDTH) * 0.2)
        self.qformer = Blip2QFormerModel(q_former.q_former_config(30522, False))
        self.language_projection = nn.Linear(q_former.WIDTH, language_width)
        nn.init.normal_(self.language_projection.weight, std=0.02)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """features (batch, 65, 192) -> prompt (batch, 16, languageWidth)"""
        queries = self.query_tokens.expand(len(features), -1, -1)
        read = self.qformer(query_embeds=queries, encoder_hidden_states=features).last_hidden_state
        return self.language_projection(read)


def from_stage1(bridge: Bridge, out: Path, vocabulary: int) -> None:
    stage1 = StageOne(vocabulary)
    stage1.load_state_dict(torch.load(out / "stage1.pt")["module"])
    bridge.query_tokens.data.copy_(stage1.model.query_tokens.data)
    missing, unexpected = bridge.qformer.load_state_dict(stage1.model.qformer.state_dict(), strict=False)
    assert not missing and all("intermediate." in name or ".output." in name for name in unexpected), (missing, unexpected)


def open_opt(out: Path) -> OPTForCausalLM:
    """The frozen language model as it ships: weights rounded to f16, computed in f32."""
    opt = OPTForCausalLM.from_pretrained(out / "opt-model", dtype=torch.float32, attn_implementation="eager")
    return opt.eval().requires_grad_(False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--from-scratch", action="store_true")
    parser.add_argument("--name", default=None, help="of the checkpoint and the curve (default: stage2, or stage2-scratch)")
    options = parser.parse_args()
    tokenizer = open_tokenizer(options.out)
    features = features_of("train", SCENES, options.out)
    scenes = told_of("train", SCENES, options.out)
    dev = {split: (features_of(split, 1000, options.out), told_of(split, 1000, options.out)) for split in ("dev-comb", "dev-iid")}
    torch.manual_seed(4)
    opt = open_opt(options.out)
    bridge = Bridge(opt.config.hidden_size)
    if not options.from_scratch:
        from_stage1(bridge, options.out, len(q_former.open_tokenizer(options.out)))

    def step_loss(step: int):
        rng = random.Random(f"stage 2 {step}")
        rows = [rng.randrange(SCENES) for _ in range(options.batch)]
        packed = pack(tokenizer, [prompt_and_answer(scenes[row], rng) for row in rows])
        with torch.autocast("cpu", torch.bfloat16):
            logits = packed_logits(opt, bridge(features_batch(features, np.array(rows))), packed)
        total = text_loss(logits, packed.targets)
        return total, {"loss": total}

    @torch.no_grad()
    def look():
        bridge.eval()
        shares = {}
        for split, (seen, told) in dev.items():
            prompt = bridge(features_batch(seen, np.arange(len(told))))
            rng = random.Random("stage 2 dev")
            right = {"caption": right_of(prompt, [("", f" {texts.caption(scene)}") for scene in told])}
            for kind in texts.QUESTION_KINDS:
                asked = [texts.question(scene, kind, rng) for scene in told]
                rows = [i for i, each in enumerate(asked) if each is not None]
                right[kind] = right_of(prompt[rows], [(texts.ask(asked[i][1], rng), f" {asked[i][2]}") for i in rows])
            shares[split] = right
        bridge.train()
        return shares

    def right_of(prompt: torch.Tensor, pairs: list[tuple[str, str]]) -> float:
        shares = [
            right_answers(opt, prompt[i : i + 250], pack(tokenizer, [[pair] for pair in pairs[i : i + 250]]))
            for i in range(0, len(pairs), 250)
        ]
        return round(float(torch.cat(shares).mean()), 3)

    loop.train(
        name=options.name or ("stage2-scratch" if options.from_scratch else "stage2"),
        out=options.out,
        module=bridge,
        inner=loop.matrices(bridge.qformer.encoder),
        steps=options.steps,
        step_loss=step_loss,
        look=look,
        look_every=min(1000, options.steps // 4),
    )


if __name__ == "__main__":
    main()
