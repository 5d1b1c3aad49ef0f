"""What transformers says of the example images: the ids that test/models/demo-examples.ts compares ours with.

    training/record_examples.py --model models/blip2-opt-demo     writes test/fixtures/demo-examples.json

In f32, and under the roundings of --dtype f16 (test/fixtures/oracle.py says which) where that answer is robust to them.
"""

from __future__ import annotations

import argparse
import json
import sys
from importlib.metadata import version
from pathlib import Path

import torch
from transformers import logging

from checkpoint_digest import checkpoint_digest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "test" / "fixtures"))
from oracle import Oracle  # noqa: E402

PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "pillow", "numpy")
SETTINGS = {
    "max_new_tokens": 30,
    "min_new_tokens": 0,
    "num_beams": 1,
    "length_penalty": 1.0,
    "repetition_penalty": 1.0,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    model = parser.parse_args().model
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    oracle = Oracle(model)
    truths = [json.loads(line) for line in (ROOT / "examples" / "captions.jsonl").read_text().splitlines()]
    examples, fragile = [], []
    for truth in truths:
        name = Path(truth["image"]).name
        case = oracle.case(name, str(ROOT / "examples" / truth["image"]), None, SETTINGS)
        if case is None:
            fragile.append(name)
            continue
        kept = {key: case[key] for key in ("pixels_sha256", "token_ids", "text")}
        f16 = {"f16": {"token_ids": case["f16"]["token_ids"]}} if "f16" in case else {}
        examples.append({"image": name, **kept, **f16})
    if fragile:
        raise SystemExit(f"expected captions that hang on no rounding, got {', '.join(fragile)} that do; draw other examples")
    stated = {
        "made_by": "training/record_examples.py",
        "versions": {package: version(package) for package in PACKAGES},
        "model_digest": checkpoint_digest(model),
        "max_new_tokens": SETTINGS["max_new_tokens"],
    }
    lines = ",\n".join(f"    {json.dumps(example)}" for example in examples)
    head = json.dumps(stated, indent=2)[:-2]
    (ROOT / "test" / "fixtures" / "demo-examples.json").write_text(f'{head},\n  "examples": [\n{lines}\n  ]\n}}\n')
    right = sum(example["text"] == truth["text"] for example, truth in zip(examples, truths))
    f16 = sum("f16" in example for example in examples)
    print(f"{len(examples)} examples, {f16} of them with f16; {right} as their true captions")


if __name__ == "__main__":
    main()
