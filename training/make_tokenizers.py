"""The two tokenizers of the demo models, made from the scenes' own texts; the same files on every run.

The language model's is byte-level BPE with OPT's special tokens, so any text can be read. The Q-Former's is BERT WordPiece
over whole words, with characters for what is in none of them.

    training/make_tokenizers.py --out DIR     writes DIR/opt/ and DIR/q-former/
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import BertTokenizerFast, PreTrainedTokenizerFast

import texts

MERGES = 520
SCENES = 8000
QUERIES = 16
BOS, PAD, EOS, IMAGE = "</s>", "<pad>", "\n", "<image>"
SPECIALS = ["<s>", PAD, BOS, "<unk>"]  # ids 0 to 3, as OPT has them


def corpus() -> list[str]:
    """Every sort of text that training uses, of scenes that nobody draws."""
    rng = random.Random(5)
    lines = []
    for _ in range(SCENES):
        scene = texts.imagine(rng)
        lines += [texts.caption(scene), texts.paraphrase(scene, rng), texts.placed(scene, rng), " ".join(texts.facts(scene, rng))]
        for kind in texts.QUESTION_KINDS:
            asked = texts.question(scene, kind, rng)
            if asked is not None:
                lines.append(f"{texts.ask(asked[1], rng)} {asked[2]}")
    return lines


def bpe(words: Counter[str], merges: int) -> list[tuple[str, str]]:
    """The commonest pair first; among equals the first in the alphabet, so that every run gives the same list."""
    split = {word: list(word) for word in sorted(words)}
    found: list[tuple[str, str]] = []
    for _ in range(merges):
        pairs: Counter[tuple[str, str]] = Counter()
        for word, parts in split.items():
            for pair in zip(parts, parts[1:]):
                pairs[pair] += words[word]
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        found.append(best)
        for parts in split.values():
            i = 0
            while i < len(parts) - 1:
                if (parts[i], parts[i + 1]) == best:
                    parts[i : i + 2] = ["".join(best)]
                i += 1
    return found


def opt_tokenizer(lines: list[str]) -> PreTrainedTokenizerFast:
    words: Counter[str] = Counter()
    split = pre_tokenizers.ByteLevel(add_prefix_space=False)
    for line in lines:
        for text in (line, f" {line}"):  # texts follow </s> with and without a space
            words.update(word for word, _ in split.pre_tokenize_str(text))
    bytes_ = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = bpe(words, MERGES)
    vocabulary = SPECIALS + bytes_ + ["".join(pair) for pair in merges]
    ids = {token: i for i, token in enumerate(dict.fromkeys(vocabulary))}
    ids[IMAGE] = len(ids)
    tokenizer = Tokenizer(models.BPE(ids, merges))
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in [*SPECIALS, IMAGE]])
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, ids[BOS])])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=BOS,
        pad_token=PAD,
        unk_token=BOS,
        additional_special_tokens=[IMAGE],
        clean_up_tokenization_spaces=False,
        padding_side="left",
        model_max_length=96,
    )


def q_former_tokenizer(lines: list[str], folder: Path) -> BertTokenizerFast:
    words = Counter(word for line in lines for word in "".join(c if c.isalnum() else f" {c} " for c in line.lower()).split())
    characters = [chr(c) for c in range(33, 127) if not chr(c).isupper()]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", *characters, *(f"##{c}" for c in characters if c.isalnum())]
    vocabulary += sorted(word for word in words if len(word) > 1)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in vocabulary))
    tokenizer = BertTokenizerFast(str(folder / "vocab.txt"), do_lower_case=True, model_max_length=64)
    tokenizer.add_special_tokens({"bos_token": "[DEC]"})
    return tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    lines = corpus()
    opt_tokenizer(lines).save_pretrained(out / "opt")
    q_former_tokenizer(lines, out / "q-former").save_pretrained(out / "q-former")


if __name__ == "__main__":
    main()
