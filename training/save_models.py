"""Put the trained parts together as checkpoints in Hugging Face layout, weights in f16.

    training/save_models.py --out DIR --models models     writes models/blip2-opt-demo and models/blip2-itm-demo
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch
from transformers import Blip2Config, Blip2ForConditionalGeneration, Blip2ForImageTextRetrieval, Blip2Processor, BlipImageProcessor, GenerationConfig

import language
import q_former
from features import open_vit
from make_tokenizers import IMAGE, QUERIES
from q_former import StageOne
from scenes import SIDE
from train_stage2 import Bridge, open_opt
from train_vit import CONFIG as VISION


def image_processor() -> BlipImageProcessor:
    return BlipImageProcessor(size={"height": SIDE, "width": SIDE})


def save_caption_model(out: Path, folder: Path) -> None:
    tokenizer = language.open_tokenizer(out)
    opt = open_opt(out)
    bridge = Bridge(opt.config.hidden_size)
    bridge.load_state_dict(torch.load(out / "stage2.pt")["module"])
    config = Blip2Config(
        vision_config=VISION.to_dict(),
        qformer_config=bridge.qformer.config.to_dict(),
        text_config=opt.config.to_dict(),
        num_query_tokens=QUERIES,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
    )
    model = Blip2ForConditionalGeneration(config)
    model.vision_model.load_state_dict(open_vit(out).state_dict())
    model.query_tokens.data.copy_(bridge.query_tokens.data)
    model.qformer.load_state_dict(bridge.qformer.state_dict())
    model.language_projection.load_state_dict(bridge.language_projection.state_dict())
    model.language_model.load_state_dict(opt.state_dict())
    text = opt.config
    model.generation_config = GenerationConfig(
        bos_token_id=text.bos_token_id, eos_token_id=text.eos_token_id, pad_token_id=text.pad_token_id
    )
    save(model, folder)
    Blip2Processor(image_processor(), tokenizer, num_query_tokens=QUERIES).save_pretrained(folder)


def save_retrieval_model(out: Path, folder: Path) -> None:
    tokenizer = q_former.open_tokenizer(out)
    stage1 = StageOne(len(tokenizer))
    stage1.load_state_dict(torch.load(out / "stage1.pt")["module"])
    model = Blip2ForImageTextRetrieval(q_former.retrieval_config(len(tokenizer)))
    model.vision_model.load_state_dict(open_vit(out).state_dict())
    missing, unexpected = model.load_state_dict(stage1.model.state_dict(), strict=False)
    assert not unexpected and all(name.startswith("vision_model.") for name in missing), (missing, unexpected)
    save(model, folder)
    # The model strips no image tokens where image_token_index is not set, so the processor must add none.
    Blip2Processor(image_processor(), tokenizer, num_query_tokens=None).save_pretrained(folder)


def save(model: torch.nn.Module, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for parameter in model.parameters():
        parameter.data = parameter.data.half()
    model.config.dtype = torch.float16
    model.config.text_config._name_or_path = ""  # else the folder that the part was read from
    model.save_pretrained(folder)
    for path in folder.iterdir():
        path.chmod(0o644)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True)
    options = parser.parse_args()
    save_caption_model(options.out, options.models / "blip2-opt-demo")
    save_retrieval_model(options.out, options.models / "blip2-itm-demo")
    for name in ("blip2-opt-demo", "blip2-itm-demo"):
        size = sum(path.stat().st_size for path in (options.models / name).iterdir())
        print(f"{options.models / name}: {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
