"""What transformers says of the held-out scenes, token by token: greedy, in f32 on the CPU.

    training/reference_predictions.py --model models/blip2-opt-demo --sets DIR --out models/reference [--set NAME ...]

DIR is what render_sets.py wrote. Writes OUT/NAME.jsonl: a header line, then a line per scene with lists of new token ids,
the final end-of-text id included: the caption's, then, for the core sets, one for each question in the set's order.
Texts of equal length share a batch, so nothing is padded; some scenes are asked again alone, and must say the same.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path

import torch
from PIL import Image
from transformers import Blip2ForConditionalGeneration, Blip2Processor, logging

from checkpoint_digest import checkpoint_digest

CAPTION_TOKENS = 30  # most new ids; as in evaluation/predictions.ts
ANSWER_TOKENS = 10
SETS = ("test-comb", "test-iid", "test-comb-hard", "test-iid-hard")
WITH_ANSWERS = ("test-comb", "test-iid")
BATCH = 64
ALONE = 24  # scenes asked again without a batch
PACKAGES = ("torch", "transformers", "tokenizers", "pillow", "numpy")

Asked = tuple[int, str | None]  # scene, text for the language model


class Reference:
    def __init__(self, folder: Path) -> None:
        self.processor = Blip2Processor.from_pretrained(folder)
        self.model = Blip2ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
        self.eos = self.model.config.text_config.eos_token_id

    def pixels(self, path: Path) -> torch.Tensor:
        """(1, 3, 112, 112)"""
        return self.processor.image_processor(Image.open(path), return_tensors="pt").pixel_values

    def input_ids(self, text: str | None) -> list[int]:
        config = self.model.config
        slots = [config.image_token_index] * config.num_query_tokens
        if text is None:
            return [*slots, config.text_config.bos_token_id]
        return [*slots, *self.processor.tokenizer(text).input_ids]

    @torch.no_grad()
    def new_ids(self, pixels: torch.Tensor, texts: list[str | None]) -> list[list[int]]:
        """pixels (batch, 3, 112, 112), texts that are equally many tokens -> the new ids of each."""
        given = torch.tensor([self.input_ids(text) for text in texts])
        most = CAPTION_TOKENS if texts[0] is None else ANSWER_TOKENS
        rows = self.model.generate(pixels, input_ids=given, max_new_tokens=most, do_sample=False, num_beams=1)
        new = [row[given.shape[1] :] for row in rows.tolist()]
        return [ids[: ids.index(self.eos) + 1] if self.eos in ids else ids for ids in new]

    def answers(self, pixels: torch.Tensor, asked: list[Asked], size: int) -> list[list[int]]:
        """The new ids of each, in the order given; equal lengths share batches of at most `size`."""
        groups: defaultdict[tuple, list[int]] = defaultdict(list)
        for number, (_, text) in enumerate(asked):
            groups[text is None, len(self.input_ids(text))].append(number)
        found: list[list[int]] = [[] for _ in asked]
        for numbers in groups.values():
            for start in range(0, len(numbers), size):
                batch = numbers[start : start + size]
                ids = self.new_ids(pixels[[asked[n][0] for n in batch]], [asked[n][1] for n in batch])
                for number, each in zip(batch, ids):
                    found[number] = each
        return found


def predict(reference: Reference, folder: Path, name: str) -> list[list[list[int]]]:
    items = [json.loads(line) for line in (folder / "items.jsonl").read_text().splitlines()]
    pixels = torch.cat([reference.pixels(folder / item["image"]) for item in items])
    asked: list[Asked] = []
    for scene, item in enumerate(items):
        asked.append((scene, None))
        if name in WITH_ANSWERS:
            asked += [(scene, f"Question: {each['question']} Answer:") for each in item["questions"]]
    found = reference.answers(pixels, asked, BATCH)
    again = set(random.Random(name).sample(range(len(items)), min(ALONE, len(items))))
    numbers = [number for number, (scene, _) in enumerate(asked) if scene in again]
    alone = reference.answers(pixels, [asked[number] for number in numbers], 1)
    unlike = [asked[number] for number, ids in zip(numbers, alone) if ids != found[number]]
    if unlike:
        raise SystemExit(f"{name}: expected the same ids alone as in a batch, got others for {unlike[:3]}")
    scenes: list[list[list[int]]] = [[] for _ in items]
    for (scene, _), ids in zip(asked, found):
        scenes[scene].append(ids)
    return scenes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--sets", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--set", dest="names", action="append", choices=SETS, help="may be repeated (default: all)")
    options = parser.parse_args()
    logging.set_verbosity_error()
    reference = Reference(options.model)
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.names or SETS:
        print(f"{name}: asking transformers", file=sys.stderr, flush=True)
        scenes = predict(reference, options.sets / name, name)
        header = {
            "made_by": "training/reference_predictions.py",
            "versions": {package: version(package) for package in PACKAGES},
            "set": name,
            "set_digest": json.loads((options.sets / name / "set.json").read_text())["digest"],
            "model_digest": checkpoint_digest(options.model),
            "answers": name in WITH_ANSWERS,
        }
        lines = [json.dumps(header), *(json.dumps(ids, separators=(",", ":")) for ids in scenes)]
        (options.out / f"{name}.jsonl").write_text("".join(f"{line}\n" for line in lines))


if __name__ == "__main__":
    main()
