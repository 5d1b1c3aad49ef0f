"""How well transformers finds the retrieval set's captions for its pictures, and the pictures for the captions.

    training/reference_retrieval.py --model models/blip2-itm-demo --sets DIR --out models/reference/retrieval.json

Writes the place of each true partner among the first 16 of all, from 1, or 0 where it is not among them: first by ITC,
the largest cosine over the queries; then with those 16 ranked anew by ITM logit 1 + ITC cosine. In f32 on the CPU.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path

import torch
from PIL import Image
from torch import nn
from transformers import AutoTokenizer, Blip2ForImageTextRetrieval, BlipImageProcessor, logging

from checkpoint_digest import checkpoint_digest

RERANKED = 16
BATCH = 128
PACKAGES = ("torch", "transformers", "tokenizers", "pillow", "numpy")


class Seen(nn.Module):
    """Stands in for the vision tower: features that were computed before, chosen by number in place of pixels."""

    def __init__(self, features: torch.Tensor) -> None:
        super().__init__()
        self.features = features

    def forward(self, pixel_values: torch.Tensor, **_) -> tuple[torch.Tensor]:
        return (self.features[pixel_values],)


class Retrieval:
    def __init__(self, folder: Path, pictures: list[Path], captions: list[str]) -> None:
        self.model = Blip2ForImageTextRetrieval.from_pretrained(folder, dtype=torch.float32).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder)
        self.ids = [tokenizer(caption).input_ids for caption in captions]
        process = BlipImageProcessor.from_pretrained(folder)
        with torch.no_grad():
            pixels = [process(Image.open(path), return_tensors="pt").pixel_values for path in pictures]
            features = [self.model.vision_model(batch).last_hidden_state for batch in torch.cat(pixels).split(BATCH)]
        self.model.vision_model = Seen(torch.cat(features))

    def by_length(self, numbers: list[int]) -> list[list[int]]:
        """Batches of texts, by number, that are equally long: nothing is padded."""
        groups: defaultdict[int, list[int]] = defaultdict(list)
        for number in numbers:
            groups[len(self.ids[number])].append(number)
        return [group[i : i + BATCH] for group in groups.values() for i in range(0, len(group), BATCH)]

    @torch.no_grad()
    def cosines(self) -> torch.Tensor:
        """ITC: (images, texts)"""
        number = len(self.ids)
        found = torch.empty(number, number)
        for texts in self.by_length(list(range(number))):
            ids = torch.tensor([self.ids[text] for text in texts])
            for images in torch.arange(number).split(BATCH):
                said = self.model(images, ids, torch.ones_like(ids), use_image_text_matching_head=False)
                found[images[:, None], torch.tensor(texts)[None]] = said.logits_per_image
        return found

    @torch.no_grad()
    def match_logits(self, pairs: list[tuple[int, int]]) -> dict[tuple[int, int], float]:
        """ITM: (image, text) -> the logit of "they match"."""
        of_length: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
        for pair in pairs:
            of_length[len(self.ids[pair[1]])].append(pair)
        found = {}
        for group in of_length.values():
            for i in range(0, len(group), BATCH):
                batch = group[i : i + BATCH]
                ids = torch.tensor([self.ids[text] for _, text in batch])
                images = torch.tensor([image for image, _ in batch])
                said = self.model(images, ids, torch.ones_like(ids), use_image_text_matching_head=True)
                found.update(zip(batch, said.logits_per_image[:, 1].tolist()))
        return found


def places(ranked: list[list[int]]) -> list[int]:
    """ranked[i]: what was found for i, the best first; i itself is what was to be found."""
    return [row.index(i) + 1 if i in row else 0 for i, row in enumerate(ranked)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--sets", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    logging.set_verbosity_error()
    folder = options.sets / "retrieval"
    items = [json.loads(line) for line in (folder / "items.jsonl").read_text().splitlines()]
    print("retrieval: vision tower", file=sys.stderr, flush=True)
    retrieval = Retrieval(options.model, [folder / item["image"] for item in items], [item["caption"] for item in items])
    print("retrieval: ITC", file=sys.stderr, flush=True)
    cosines = retrieval.cosines()
    # per text the images, per image the texts
    first = {"text_to_image": cosines.t(), "image_to_text": cosines}
    best = {way: scores.topk(RERANKED, dim=1).indices.tolist() for way, scores in first.items()}
    pair_of = {"text_to_image": lambda text, image: (image, text), "image_to_text": lambda image, text: (image, text)}
    pairs = {pair_of[way](i, j) for way, rows in best.items() for i, row in enumerate(rows) for j in row}
    print(f"retrieval: ITM of {len(pairs)} pairs", file=sys.stderr, flush=True)
    logits = retrieval.match_logits(sorted(pairs))
    found = {}
    for way, rows in best.items():
        score = lambda i, j: logits[pair_of[way](i, j)] + float(first[way][i, j])
        again = [sorted(row, key=lambda j: -score(i, j)) for i, row in enumerate(rows)]
        found[way] = {"itc": places(rows), "itm": places(again)}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    stated = {
        "made_by": "training/reference_retrieval.py",
        "versions": {package: version(package) for package in PACKAGES},
        "set_digest": json.loads((folder / "set.json").read_text())["digest"],
        "model_digest": checkpoint_digest(options.model),
        "pairs": len(items),
        "reranked": RERANKED,
        **found,
    }
    options.out.write_text(json.dumps(stated) + "\n")


if __name__ == "__main__":
    main()
