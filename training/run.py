"""Make the demo models from nothing, by the two stages of BLIP-2. One command; killed, it goes on where it was.

    python -m venv .venv && .venv/bin/pip install -r training/requirements.txt
    .venv/bin/python training/run.py --out training-run --models models

Needs Debian's fonts-noto-color-emoji, and 7 GB of disk for 100,000 pictures and their features. Hours on two cores: the
"seconds" of the curves are a step's, beside whatever else ran.
Each part is one script, in this order, and can be run alone:

    make_tokenizers   the two vocabularies
    train_vit         the vision tower, then frozen
    train_opt         the language model, then frozen
    train_stage1      the Q-Former with pairs of pictures and texts: ITC, ITM, ITG
    train_stage2      the Q-Former and the projection, speaking to the language model
    save_models       both checkpoints in Hugging Face layout, f16
    plot_curves       the losses as a picture
    with --ablation also train_stage2 with and without stage 1 at equal steps
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from scenes import FONT

HERE = Path(__file__).parent
ABLATION_STEPS = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="checkpoints, scenes and curves")
    parser.add_argument("--models", type=Path, required=True, help="where the finished checkpoints go")
    parser.add_argument("--ablation", action="store_true", help="also compare stage 2 with and without stage 1")
    options = parser.parse_args()
    if not FONT.exists():
        raise SystemExit(f"{FONT} is missing: install Debian's package fonts-noto-color-emoji")
    options.out.mkdir(parents=True, exist_ok=True)

    def part(script: str, *arguments: str) -> None:
        print(f"== {script} {' '.join(arguments)}", flush=True)
        subprocess.run([sys.executable, HERE / f"{script}.py", "--out", options.out, *arguments], check=True)

    if not (options.out / "opt" / "tokenizer.json").exists():
        part("make_tokenizers")
    # A frozen part that is there already, from an earlier run or from elsewhere, is taken as it is.
    if not (options.out / "vit" / "model.safetensors").exists():
        part("train_vit")
    if not (options.out / "opt-model" / "model.safetensors").exists():
        part("train_opt")
    part("train_stage1")
    part("train_stage2")
    if options.ablation:
        part("train_stage2", "--name", "ablation-with", "--steps", str(ABLATION_STEPS))
        part("train_stage2", "--name", "ablation-without", "--steps", str(ABLATION_STEPS), "--from-scratch")
    part("save_models", "--models", str(options.models))
    part("plot_curves", "--models", str(options.models))


if __name__ == "__main__":
    main()
