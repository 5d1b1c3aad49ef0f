"""Check that a training run that is killed ends as one that is not: same curve, same weights to the last bit.

    training/check_resume.py
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import loop  # first: it sets how PyTorch's threads wait
import torch

import make_tokenizers
import texts
from language import new_opt, open_tokenizer, pack, packed_logits, prompt_and_answer, text_loss

STEPS, KILLED_AT, SAVED_EVERY = 300, 250, 100


def run(out: Path, killed_at: int | None) -> None:
    """The language model's training in small: 4 scenes a step, told in words."""
    if not (out / "opt").exists():
        make_tokenizers.opt_tokenizer(make_tokenizers.corpus()[:2000]).save_pretrained(out / "opt")
    tokenizer = open_tokenizer(out)
    torch.manual_seed(2)
    opt = new_opt(tokenizer)

    def step_loss(step: int):
        if step == killed_at:
            signal.raise_signal(signal.SIGKILL)
        rng = random.Random(step)
        scenes = [texts.imagine(rng) for _ in range(4)]
        facts = tokenizer([" " + " ".join(texts.facts(s, rng)) for s in scenes], add_special_tokens=False, padding="max_length", max_length=16, truncation=True)
        packed = pack(tokenizer, [prompt_and_answer(scene, rng)[:2] for scene in scenes])
        total = text_loss(packed_logits(opt, opt.get_input_embeddings()(torch.tensor(facts.input_ids)), packed), packed.targets)
        return total, {"loss": total}

    loop.train(
        name="check", out=out, module=opt, inner=loop.matrices(opt.model.decoder.layers), steps=STEPS, step_loss=step_loss, look=dict, look_every=100, save_every=SAVED_EVERY
    )


def losses(out: Path) -> list[tuple[int, float]]:
    return [(line["step"], line["loss"]) for line in map(json.loads, (out / "check-curve.jsonl").read_text().splitlines())]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?", help="one of the runs that are compared, into this folder")
    parser.add_argument("killed_at", type=int, nargs="?", help="the step before which it is killed")
    options = parser.parse_args()
    if options.run is not None:
        run(options.run, options.killed_at)
        return
    with tempfile.TemporaryDirectory() as folder:
        whole, cut = Path(folder, "whole"), Path(folder, "cut")
        for out, *killed_at in ((whole,), (cut, str(KILLED_AT)), (cut,)):
            out.mkdir(exist_ok=True)
            status = subprocess.run([sys.executable, __file__, out, *killed_at]).returncode
            assert status == (-signal.SIGKILL if killed_at else 0), status
        assert losses(whole) == losses(cut) and len(losses(cut)) == STEPS // 100, (losses(whole), losses(cut))
        weights = [torch.load(out / "check.pt")["module"] for out in (whole, cut)]
        assert all(torch.equal(a, b) for a, b in zip(weights[0].values(), weights[1].values())), "weights differ"
    print("killed and resumed: same curve, same weights")


if __name__ == "__main__":
    main()
