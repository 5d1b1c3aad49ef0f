"""The small Q-Former with its text branch and stage-1 heads: the reference's Blip2ForImageTextRetrieval without its tower."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from transformers import BertTokenizerFast, Blip2Config, Blip2ForImageTextRetrieval, Blip2QFormerConfig, OPTConfig

from make_tokenizers import QUERIES
from train_vit import CONFIG as VISION

WIDTH = 192
JOINT_WIDTH = 64


def open_tokenizer(out: Path) -> BertTokenizerFast:
    return BertTokenizerFast.from_pretrained(out / "q-former")


def q_former_config(vocabulary: int, reads_text: bool) -> Blip2QFormerConfig:
    return Blip2QFormerConfig(
        vocab_size=vocabulary,
        hidden_size=WIDTH,
        num_hidden_layers=4,
        num_attention_heads=6,
        intermediate_size=2 * WIDTH,
        hidden_act="gelu",
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        max_position_embeddings=64,
        initializer_range=0.02,
        layer_norm_eps=1e-12,
        pad_token_id=0,
        cross_attention_frequency=2,
        encoder_hidden_size=VISION.hidden_size,
        use_qformer_text_input=reads_text,
    )


def retrieval_config(vocabulary: int) -> Blip2Config:
    return Blip2Config(
        vision_config=VISION.to_dict(),
        qformer_config=q_former_config(vocabulary, True).to_dict(),
        text_config=OPTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=1, ffn_dim=16, vocab_size=4, word_embed_proj_dim=16).to_dict(),
        num_query_tokens=QUERIES,
        image_text_hidden_size=JOINT_WIDTH,
        image_token_index=None,
    )


class StageOne(nn.Module):
    """The retrieval model's parts, plus the temperature and the text head that the saved model does not keep."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        model = Blip2ForImageTextRetrieval(retrieval_config(vocabulary))
        model.vision_model = None
        nn.init.normal_(model.query_tokens, std=0.2)  # the class starts them at zero, where all queries learn the same
        self.model = model
        self.log_temperature = nn.Parameter(torch.tensor(0.07).log())
        self.say = nn.Linear(WIDTH, WIDTH)
        self.say_norm = nn.LayerNorm(WIDTH)
        self.say_bias = nn.Parameter(torch.zeros(vocabulary))

    def queries_of(self, features: torch.Tensor) -> torch.Tensor:
        """features (batch, 65, 192) -> (batch, 16, 192)"""
        queries = self.model.query_tokens.expand(len(features), -1, -1)
        return self.model.qformer(query_embeds=queries, encoder_hidden_states=features).last_hidden_state

    def image_vectors(self, features: torch.Tensor) -> torch.Tensor:
        """(batch, 16, 64), each of length 1"""
        return F.normalize(self.model.vision_projection(self.queries_of(features)), dim=-1)

    def text_vectors(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(batch, 64), each of length 1"""
        embeds = self.model.embeddings(input_ids=ids)
        states = self.model.qformer(query_embeds=embeds, query_length=0, attention_mask=mask).last_hidden_state
        return F.normalize(self.model.text_projection(states[:, 0]), dim=-1)

    def together(self, features: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Queries and text in one pass under a mask (batch, [16 + length,] 16 + length) -> states (batch, 16 + length, 192)"""
        embeds = self.model.embeddings(input_ids=ids, query_embeds=self.model.query_tokens.expand(len(features), -1, -1))
        return self.model.qformer(
            query_embeds=embeds, query_length=QUERIES, attention_mask=mask, encoder_hidden_states=features
        ).last_hidden_state

    def match_logits(self, features: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """ITM: everything sees everything. (batch, 2)"""
        whole = torch.cat([torch.ones(len(ids), QUERIES, dtype=mask.dtype), mask], 1)
        return self.model.itm_head(self.together(features, ids, whole)[:, :QUERIES]).mean(1)

    def say_logits(self, features: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """ITG: queries see queries, text sees queries and the text before it. (batch, length, vocabulary)"""
        batch, length = ids.shape
        sees = torch.zeros(batch, QUERIES + length, QUERIES + length)
        sees[:, :, :QUERIES] = 1
        sees[:, QUERIES:, QUERIES:] = torch.ones(length, length).tril() * mask[:, None, :]
        states = self.together(features, ids, sees)[:, QUERIES:]
        words = self.model.embeddings.word_embeddings.weight
        return F.linear(self.say_norm(F.gelu(self.say(states))), words, self.say_bias)
