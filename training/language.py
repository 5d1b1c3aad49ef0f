"""The small OPT, and several texts about one prefix in one pass.

A prefix is 16 vectors: facts as words while the language model learns, the Q-Former's prompt afterwards. Each text about it
begins with </s> and sees the prefix and itself, at the positions that it would have alone; so one pass over
[prefix, text, text, ...] gives the same logits as a pass per text.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional as F
from transformers import OPTConfig, OPTForCausalLM, PreTrainedTokenizerFast

import texts
from make_tokenizers import BOS, EOS, PAD, QUERIES
from texts import Told

WIDTH = 128
PACKED = 112  # most tokens of the texts of one prefix
QUESTIONS_EACH = 5
CANONICAL = 0.94  # the share of unprompted captions that are canonical: below about .9, captions drift to paraphrases
# Harder kinds of question are asked more often.
QUESTION_WEIGHTS = {"count": 3, "exist": 1, "colour": 0.7, "category": 1.5, "total": 1.5, "more": 2, "where": 3, "side": 2.5}


def open_tokenizer(out: Path) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast.from_pretrained(out / "opt")


def eos_id(tokenizer: PreTrainedTokenizerFast) -> int:
    """The line break ends a text, as in the published BLIP-2 with OPT."""
    return tokenizer(EOS, add_special_tokens=False).input_ids[0]


def new_opt(tokenizer: PreTrainedTokenizerFast) -> OPTForCausalLM:
    config = OPTConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        word_embed_proj_dim=WIDTH,
        num_hidden_layers=6,
        num_attention_heads=4,
        ffn_dim=4 * WIDTH,
        max_position_embeddings=96,
        dropout=0.0,
        attention_dropout=0.0,
        layerdrop=0.0,
        bos_token_id=tokenizer.convert_tokens_to_ids(BOS),
        pad_token_id=tokenizer.convert_tokens_to_ids(PAD),
        eos_token_id=eos_id(tokenizer),
        tie_word_embeddings=True,
    )
    model = OPTForCausalLM(config)
    model.set_attn_implementation("eager")  # see train_vit.py
    return model


def prompt_and_answer(scene: Told, rng: random.Random, weights: dict[str, float] = QUESTION_WEIGHTS) -> list[tuple[str, str]]:
    """A caption and a handful of questions: (what is given after </s>, what is to be said)."""
    said = f" {texts.caption(scene) if rng.random() < CANONICAL else texts.paraphrase(scene, rng)}"
    pairs = [("", said)]
    tries = rng.choices(list(weights), list(weights.values()), k=3 * QUESTIONS_EACH)
    for kind in tries:
        asked = texts.question(scene, kind, rng)
        if asked is not None:
            pairs.append((texts.ask(asked[1], rng), f" {asked[2]}"))
        if len(pairs) == 1 + QUESTIONS_EACH:
            break
    return pairs


@dataclass(frozen=True)
class Packed:
    """Texts about `batch` prefixes. ids, positions, owner (batch, length): owner numbers the text a token belongs to, -1 for
    padding. targets (batch, length): the id that follows where it counts, else -100."""

    ids: torch.Tensor
    positions: torch.Tensor
    owner: torch.Tensor
    targets: torch.Tensor


def pack(tokenizer: PreTrainedTokenizerFast, items: list[list[tuple[str, str]]]) -> Packed:
    flat = [pair for pairs in items for pair in pairs]
    given = tokenizer([prompt for prompt, _ in flat], add_special_tokens=True).input_ids
    said = tokenizer([answer + EOS for _, answer in flat], add_special_tokens=False).input_ids
    rows, at = [], 0
    for pairs in items:
        ids, positions, owner, targets = [], [], [], []
        for number in range(len(pairs)):
            text, start = given[at] + said[at], len(given[at])
            at += 1
            if len(ids) + len(text) - 1 > PACKED:
                continue
            ids += text[:-1]  # the last is only ever a target
            positions += range(QUERIES, QUERIES + len(text) - 1)
            owner += [number] * (len(text) - 1)
            targets += [-100] * (start - 1) + text[start:]
        rows.append((ids, positions, owner, targets))
    length = max(len(ids) for ids, *_ in rows)
    fill = lambda column, value: torch.tensor([row[column] + [value] * (length - len(row[column])) for row in rows])
    return Packed(fill(0, 1), fill(1, QUERIES), fill(2, -1), fill(3, -100))


def packed_logits(opt: OPTForCausalLM, prefix: torch.Tensor, packed: Packed) -> torch.Tensor:
    """prefix (batch, 16, width) -> logits (batch, length, vocabulary) of the texts' tokens."""
    batch, length = packed.ids.shape
    embeds = torch.cat([prefix, opt.get_input_embeddings()(packed.ids)], 1)
    owner = torch.cat([torch.full((batch, QUERIES), -2), packed.owner], 1)
    positions = torch.cat([torch.arange(QUERIES).expand(batch, -1), packed.positions], 1)
    whole = QUERIES + length
    earlier = torch.ones(whole, whole, dtype=torch.bool).tril()
    sees = earlier & ((owner[:, :, None] == owner[:, None, :]) | (owner[:, None, :] == -2))
    mask = torch.where(sees, 0.0, -1e4)[:, None]
    hidden = opt.model.decoder(inputs_embeds=embeds, attention_mask=mask, position_ids=positions, use_cache=False).last_hidden_state
    return opt.lm_head(hidden[:, QUERIES:])


def text_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=-100)


@torch.no_grad()
def right_answers(opt: OPTForCausalLM, prefix: torch.Tensor, packed: Packed) -> torch.Tensor:
    """(batch, texts) of whether greedy decoding gives every token of a text; NaN where a text is not there.

    Given the right tokens so far, greedy decoding gives the text exactly when each next token is the likeliest."""
    best = packed_logits(opt, prefix, packed).argmax(-1)
    wrong = (best != packed.targets) & (packed.targets != -100)
    number = int(packed.owner.max()) + 1
    rights = []
    for text in range(number):
        mine = packed.owner == text
        rights.append(torch.where(mine.any(1), (~(wrong & mine).any(1)).float(), torch.nan))
    return torch.stack(rights, 1)
