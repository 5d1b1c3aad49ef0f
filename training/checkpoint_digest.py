"""The digest by which a checkpoint is known, as src/weights/digest.ts computes it.

    training/checkpoint_digest.py models/*-demo > models/digests.json
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

# Beside the weights: the settings that can change an output.
DECIDING = (
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
)


def checkpoint_digest(folder: Path) -> str:
    """SHA-256 over a line "<size> <sha256> <name>" for each file, sorted by name, of a checkpoint in one file of weights."""
    text = "blipfleet checkpoint 1\n"
    for name in sorted([*DECIDING, "model.safetensors"]):
        path = folder / name
        if path.exists():
            content = path.read_bytes()
            text += f"{len(content)} {hashlib.sha256(content).hexdigest()} {name}\n"
    return hashlib.sha256(text.encode()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", type=Path, nargs="+")
    folders = parser.parse_args().checkpoints
    print(json.dumps({folder.name: checkpoint_digest(folder) for folder in folders}, indent=2))


if __name__ == "__main__":
    main()
