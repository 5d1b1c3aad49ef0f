#!/usr/bin/env python3
"""
Converts a checkpoint of LAVIS or of BLIP's own repository (.pth, a PyTorch state dict) to a directory in Hugging Face layout:
model.safetensors, config.json, preprocessor_config.json, and the tokenizer's files from --tokenizer.

    python -m venv env && env/bin/pip install -r scripts/convert-lavis-requirements.txt
    env/bin/python scripts/convert-lavis.py --from model_base_caption_capfilt_large.pth --tokenizer DIR --to DIR

LAVIS saves of BLIP-2 only what was trained. What was frozen comes from elsewhere:

    --vit FILE             eva_vit_g.pth or clip_vit_L.pth, unless the ViT was trained too
    --language-model DIR   OPT or flan-T5 in Hugging Face layout, safetensors or .bin

Which model a file holds is told by its keys (--model overrules). Tensors are read by torch.load(weights_only=True), which runs
no code of the file. All keys, and what becomes of them, are in lavis-names.json. With CLIP's ViT-L, which transformers'
Blip2VisionModel cannot express (a norm before the blocks, patches without a bias), the ViT is stored under the names of
CLIPVisionModel, and vision_config has its model_type, clip_vision_model; post_layernorm is over all tokens.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import math
import re
import shutil
import sys
import zipfile
from pathlib import Path

try:
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file
except ImportError as error:  # --help needs neither; main() tells
    torch, import_error = None, error
else:
    import_error = None

names = json.loads((Path(__file__).parent / "lavis-names.json").read_text())
vit_kinds = {"vit-g": "visual_encoder.cls_token", "vit-l": "visual_encoder.class_embedding"}
dtypes = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}
# What LAVIS uses of a ViT that comes by itself, and the heads of published widths, which no tensor tells.
used_blocks = {"vit-g": 39, "vit-l": 23}
head_widths = {1408: 88, 1024: 64, 768: 64}
tokenizer_files = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt", "vocab.json",
    "merges.txt", "spiece.model",
)
mean, deviation = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]


class Problem(Exception):
    """Something that a person has to mend: one sentence, exit status 2."""


# --- reading ---


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a .pth file, by key."""
    if not path.is_file():
        raise Problem(f"{path}: expected a file, got none; give --from a .pth of LAVIS or BLIP")
    if not zipfile.is_zipfile(path):
        raise Problem(
            f"{path}: expected a file of torch.save since PyTorch 1.6, which is a zip, got another kind (a tar or pickle of an "
            "older PyTorch, or a download that was cut off); if you trust it, load it with torch and save it anew"
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        raise Problem(
            f"{path}: expected tensors in plain containers, got {str(error).splitlines()[0][:200]}; if you trust the file, load "
            "it with torch and save its tensors alone"
        ) from error
    state = content.get("model", content.get("module", content)) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not state or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise Problem(f"{path}: expected a state dict, alone or under 'model', got {type(state).__name__} of other things")
    return state


def read_language_model(folder: Path) -> tuple[dict, dict[str, torch.Tensor]]:
    """config.json and the tensors of a language model in Hugging Face layout."""
    if not (folder / "config.json").is_file():
        raise Problem(f"--language-model: expected a directory in Hugging Face layout, got {folder} without config.json")
    tensors: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            tensors.update({key: opened.get_tensor(key) for key in opened.keys()})
    if not tensors:
        for file in sorted(folder.glob("pytorch_model*.bin")):
            tensors.update(read_state(file))
    if not tensors:
        raise Problem(f"--language-model: expected *.safetensors or pytorch_model*.bin in {folder}, got neither")
    return json.loads((folder / "config.json").read_text()), tensors


# --- names ---


def model_of(keys) -> str:
    """The kind of model that a file holds."""
    def has(prefix: str) -> bool:
        return any(key.startswith(prefix) for key in keys)

    if has("Qformer."):
        if has("opt_proj."):
            return "blip2-opt"
        if has("t5_proj."):
            return "blip2-t5"
        if has("vision_proj."):
            return "blip2-itm"
    elif has("text_decoder."):
        return "blip-vqa" if has("text_encoder.") else "blip-caption"
    elif has("text_encoder.") and has("itm_head."):
        return "blip-itm"
    first = ", ".join(sorted(keys)[:5])
    raise Problem(f"expected the keys of one of {', '.join(names['models'])}, got {first}, ...; --model says which it is")


def counted(pattern: str, keys) -> dict[str, list[int]]:
    """The numbers that stand in a pattern's {place}, by place, in the keys there are."""
    found = re.search(r"\{(\w+)\}", pattern)
    if found is None:
        return {}
    before, after = (re.escape(part) for part in pattern.split(found[0]))
    numbers = {int(match[1]) for key in keys if (match := re.fullmatch(f"{before}(\\d+){after}", key))}
    return {found[1]: sorted(numbers)}


def rows_of(part: str, keys) -> list[tuple[list[str], str, str | None]]:
    """A part's rows for the layers that a file has: keys, name, how."""
    rows = names["parts"][part]
    counts: dict[str, set[int]] = {}
    for source, *_ in rows:
        for pattern in source if isinstance(source, list) else [source]:
            for place, numbers in counted(pattern, keys).items():
                counts.setdefault(place, set()).update(numbers)
    result = []
    for source, name, *how in rows:
        patterns = source if isinstance(source, list) else [source]
        place = re.search(r"\{(\w+)\}", name)
        for number in sorted(counts.get(place[1], {0}) or {0}) if place else [None]:
            put = lambda text: text if number is None else text.replace(place[0], str(number))
            result.append(([put(pattern) for pattern in patterns], put(name), how[0] if how else None))
    return result


def made(how: str | None, tensors: list[torch.Tensor]) -> torch.Tensor:
    """The tensor of one row."""
    if how is None:
        return tensors[0]
    if how == "first, zeros, second":  # a bias of queries, keys and values whose keys have none
        return torch.cat([tensors[0], torch.zeros_like(tensors[0]), tensors[1]])
    thirds = {"rows: first third": 0, "rows: second third": 1, "rows: last third": 2}
    return tensors[0].chunk(3, dim=0)[thirds[how]]


def with_vit(state: dict, path: Path, blocks: int | None) -> dict:
    """The file's tensors and those of a ViT that comes by itself, under LAVIS' prefix, the blocks that LAVIS uses."""
    vit = {key if key.startswith(("visual_encoder.", "ln_vision.")) else f"visual_encoder.{key}": value for key, value in read_state(path).items()}
    kind = next((kind for kind, key in vit_kinds.items() if key in vit), None)
    if kind is None:
        raise Problem(f"--vit: expected cls_token (EVA's ViT-g) or class_embedding (CLIP's ViT-L) in {path}, got neither")
    most = blocks or used_blocks[kind]
    number = re.compile(r"visual_encoder\.(?:blocks|transformer\.resblocks)\.(\d+)\.")
    return {**{key: value for key, value in vit.items() if not (found := number.match(key)) or int(found[1]) < most}, **state}


def convert(state: dict, model: str) -> tuple[dict[str, torch.Tensor], str | None]:
    """Tensors by transformers' names, and which of the two ViTs BLIP-2 has. Every key is used, or known to be of no use."""
    vit = None
    result: dict[str, torch.Tensor] = {}
    used: set[str] = set()
    missing: list[str] = []
    for part in names["models"][model]["parts"]:
        if part == "vit":
            vit = part = next((kind for kind, key in vit_kinds.items() if key in state), "vit-g")
        for keys, name, how in rows_of(part, state):
            lost = [key for key in keys if key not in state]
            missing += lost
            used.update(keys)
            if not lost:
                result[name] = made(how, [state[key] for key in keys])
    if missing:
        unique = sorted(set(missing))
        hint = ""
        if all(key.startswith("visual_encoder.") for key in unique):
            hint = "; LAVIS leaves a frozen ViT out of its files: give it by --vit"
        raise Problem(f"{model}: expected {len(unique)} more keys{hint}:\n  " + "\n  ".join(unique[:40]))
    head = "text_decoder.cls.predictions.decoder.weight"
    words = "text_decoder.bert.embeddings.word_embeddings.weight"
    if head in state and head not in used:
        used.add(head)
        if not torch.equal(state[head], state[words]):
            result[head] = state[head]
            result["text_decoder.cls.predictions.decoder.bias"] = state["text_decoder.cls.predictions.bias"]
    patterns = [pattern for pattern, _ in names["unused"]]
    left = sorted(key for key in state if key not in used and not any(fnmatch.fnmatchcase(key, pattern) for pattern in patterns))
    if left:
        raise Problem(f"{model}: expected no other keys, got {len(left)} that lavis-names.json does not know:\n  " + "\n  ".join(left[:40]))
    return result, vit


# --- settings ---


def heads_of(width: int, setting: str, told: dict) -> int:
    if setting in told:
        return int(told[setting])
    if width in head_widths:
        return width // head_widths[width]
    raise Problem(f"{setting}: expected it by --set {setting}=N, because no tensor tells it and {width} is no published width")


def count(tensors: dict, pattern: str) -> int:
    return 1 + max(int(match[1]) for key in tensors if (match := re.match(pattern, key)))


def vision_config(tensors: dict, kind: str | None, eps: float, told: dict) -> dict:
    patch = tensors["vision_model.embeddings.patch_embedding.weight"]
    positions = tensors.get("vision_model.embeddings.position_embedding", tensors.get("vision_model.embeddings.position_embedding.weight"))
    side = math.isqrt(positions.shape[-2] - 1) * patch.shape[-1]
    return {
        "hidden_size": patch.shape[0],
        "intermediate_size": tensors["vision_model.encoder.layers.0.mlp.fc1.weight"].shape[0],
        "num_hidden_layers": count(tensors, r"vision_model\.encoder\.layers\.(\d+)\."),
        "num_attention_heads": heads_of(patch.shape[0], "vision_config.num_attention_heads", told),
        "image_size": side,
        "patch_size": patch.shape[-1],
        "hidden_act": "quick_gelu" if kind == "vit-l" else "gelu",
        "layer_norm_eps": 1e-5 if kind == "vit-l" else eps,
        **({"model_type": "clip_vision_model"} if kind == "vit-l" else {}),
        **({"model_type": "blip_2_vision_model", "qkv_bias": True} if kind == "vit-g" else {}),
        **({"model_type": "blip_vision_model"} if kind is None else {}),
    }


def q_former_config(tensors: dict, told: dict) -> dict:
    width = tensors["query_tokens"].shape[-1]
    layers = count(tensors, r"qformer\.encoder\.layer\.(\d+)\.")
    crossing = sorted({int(match[1]) for key in tensors if (match := re.match(r"qformer\.encoder\.layer\.(\d+)\.crossattention\.", key))})
    frequency = crossing[1] - crossing[0] if len(crossing) > 1 else layers
    if crossing != list(range(0, layers, frequency)):
        raise Problem(f"Q-Former: expected image attention on every nth layer from 0 on, got it on {crossing}")
    reads = "embeddings.word_embeddings.weight" in tensors
    return {
        "model_type": "blip_2_qformer",
        "hidden_size": width,
        "intermediate_size": tensors["qformer.encoder.layer.0.intermediate_query.dense.weight"].shape[0],
        "num_hidden_layers": layers,
        "num_attention_heads": heads_of(width, "qformer_config.num_attention_heads", told),
        "encoder_hidden_size": tensors["vision_model.embeddings.patch_embedding.weight"].shape[0],
        "cross_attention_frequency": frequency,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "use_qformer_text_input": reads,
        **(
            {
                "vocab_size": tensors["embeddings.word_embeddings.weight"].shape[0],
                "max_position_embeddings": tensors["embeddings.position_embeddings.weight"].shape[0],
            }
            if reads
            else {}
        ),
    }


def blip_text_config(tensors: dict, told: dict) -> dict:
    prefix = next(key for key in tensors if key.endswith("embeddings.word_embeddings.weight")).removesuffix(".embeddings.word_embeddings.weight")
    vocabulary, width = tensors[f"{prefix}.embeddings.word_embeddings.weight"].shape
    layer = re.escape(prefix) + r"\.encoder\.layer\.(\d+)\."
    return {
        "model_type": "blip_text_model",
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": tensors[f"{prefix}.encoder.layer.0.intermediate.dense.weight"].shape[0],
        "num_hidden_layers": count(tensors, layer),
        "num_attention_heads": heads_of(width, "text_config.num_attention_heads", told),
        "max_position_embeddings": tensors[f"{prefix}.embeddings.position_embeddings.weight"].shape[0],
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "bos_token_id": 30522,
        "sep_token_id": 102,
        "pad_token_id": 0,
        "tie_word_embeddings": "text_decoder.cls.predictions.decoder.weight" not in tensors,
    }


# As the published files of transformers have them: the id of <image>, and what ends a text.
language_ids = {"opt": (50265, {"eos_token_id": 50118}), "t5": (32100, {})}


def config_of(model: str, tensors: dict, vit: str | None, text: dict | None, told: dict) -> dict:
    config = {"architectures": [names["models"][model]["class"]], "model_type": "blip-2" if model.startswith("blip2") else "blip"}
    # transformers' configurations say 1e-5 of BLIP's ViT and 1e-6 of BLIP-2's; --behaviour lavis has what LAVIS says.
    config["vision_config"] = vision_config(tensors, vit, 1e-6 if vit else 1e-5, told)
    if model.startswith("blip2"):
        config["qformer_config"] = q_former_config(tensors, told)
        config["num_query_tokens"] = tensors["query_tokens"].shape[1]
        if text is None:
            config["image_text_hidden_size"] = tensors["vision_projection.weight"].shape[0]
        else:
            image_id, changes = language_ids[text["model_type"]]
            config["image_token_index"] = image_id
            # LAVIS sets the exact GELU, whatever the file of flan-T5 says.
            exact = {"dense_act_fn": "gelu", "feed_forward_proj": "gated-gelu"} if text["model_type"] == "t5" else {}
            config["text_config"] = {**text, **changes, **exact}
    else:
        config["text_config"] = blip_text_config(tensors, told)
        if "vision_proj.weight" in tensors:
            config["image_text_hidden_size"] = tensors["vision_proj.weight"].shape[0]
    for setting, value in told.items():
        *path, last = setting.split(".")
        part = config
        for key in path:
            part = part.setdefault(key, {})
        part[last] = value
    return config


def told_settings(given: list[str]) -> dict:
    """--set KEY=VALUE, values as JSON."""
    result = {}
    for each in given:
        key, equals, value = each.partition("=")
        if not equals or not key:
            raise Problem(f"--set: expected KEY=VALUE, got {each!r}")
        try:
            result[key] = json.loads(value)
        except json.JSONDecodeError:
            result[key] = value
    return result


# --- writing ---


def language_tensors(model: str, folder: Path) -> tuple[dict, dict[str, torch.Tensor]]:
    config, tensors = read_language_model(folder)
    wanted = model.removeprefix("blip2-")
    if config.get("model_type") != wanted:
        raise Problem(f"--language-model: expected model_type {wanted} for {model}, got {config.get('model_type')}")
    copies = {"opt": (r"lm_head\.weight",), "t5": (r"(encoder|decoder)\.embed_tokens\.weight",)}[wanted]
    prefix = "" if wanted == "t5" or any(key.startswith("model.") for key in tensors) else "model."
    kept = {key: value for key, value in tensors.items() if not any(re.fullmatch(copy, key) for copy in copies)}
    return config, {f"language_model.{prefix}{key}": value for key, value in kept.items()}


def check_tokenizer(folder: Path | None, model: str) -> None:
    wants = {"blip2-opt": "OPT's", "blip2-t5": "T5's"}.get(model, "bert-base-uncased with [DEC] as bos" + (" and [ENC]" if model.startswith("blip-") else ""))
    if folder is None or not (folder / "tokenizer.json").is_file():
        raise Problem(f"--tokenizer: expected a directory with tokenizer.json ({wants}), got {folder or 'none'}")
    if model.startswith("blip-"):
        known = (folder / "tokenizer.json").read_text()
        lacking = [token for token in ("[DEC]", "[ENC]") if f'"{token}"' not in known]
        if lacking:
            raise Problem(f"--tokenizer: expected one with {' and '.join(lacking)}, got {folder} without; take that of a BLIP checkpoint")


def write(folder: Path, tensors: dict, config: dict, tokenizer: Path, dtype: str | None, shard_bytes: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "config.json").exists():
        raise Problem(f"--to: expected a directory without config.json, got {folder}; name another, or delete it")
    wanted = {key: getattr(torch, dtypes[dtype]) if dtype and value.is_floating_point() else value.dtype for key, value in tensors.items()}
    shards: list[list[str]] = [[]]
    size = 0
    for key in sorted(tensors):
        bytes_ = tensors[key].numel() * wanted[key].itemsize
        if size + bytes_ > shard_bytes and shards[-1]:
            shards.append([])
            size = 0
        shards[-1].append(key)
        size += bytes_
    files = [f"model-{i + 1:05}-of-{len(shards):05}.safetensors" for i in range(len(shards))] if len(shards) > 1 else ["model.safetensors"]
    for file, keys in zip(files, shards):
        save_file({key: tensors[key].to(wanted[key]).clone().contiguous() for key in keys}, folder / file, metadata={"format": "pt"})
    if len(files) > 1:
        places = {key: file for file, keys in zip(files, shards) for key in keys}
        write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": places})
    side = config["vision_config"]["image_size"]
    write_json(
        folder / "preprocessor_config.json",
        {
            "image_processor_type": "BlipImageProcessor", "do_resize": True, "size": {"height": side, "width": side}, "resample": 3,
            "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": mean, "image_std": deviation,
            "do_convert_rgb": True,
        },
    )
    for name in tokenizer_files:
        if (tokenizer / name).is_file():
            shutil.copyfile(tokenizer / name, folder / name)
    # Last: a directory with it is whole.
    write_json(folder / "config.json", config)


def write_json(path: Path, value) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="source", type=Path, required=True, metavar="FILE", help="the .pth file")
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="where to write; it must hold no checkpoint yet")
    parser.add_argument("--tokenizer", type=Path, metavar="DIR", help="holds tokenizer.json and what belongs to it")
    parser.add_argument("--model", choices=list(names["models"]), help="which model the file holds (default: by its keys)")
    parser.add_argument("--vit", type=Path, metavar="FILE", help="the ViT, where it is not in the file")
    parser.add_argument("--vit-blocks", type=int, metavar="N", help="use the first N blocks of --vit (default: 39 of ViT-g, 23 of ViT-L)")
    parser.add_argument("--language-model", type=Path, metavar="DIR", help="OPT or T5 in Hugging Face layout")
    parser.add_argument("--dtype", choices=list(dtypes), help="of all tensors (default: as each is stored)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a value of config.json, e.g. text_config.eos_token_id=2")
    parser.add_argument("--shard-bytes", type=int, default=4_000_000_000, help="most bytes of one safetensors file")
    given = parser.parse_args()
    try:
        if import_error is not None:
            raise Problem(
                f"expected torch and safetensors, got {type(import_error).__name__}: {import_error}; install them by "
                "pip install -r scripts/convert-lavis-requirements.txt"
            )
        told = told_settings(given.set)
        state = read_state(given.source)
        model = given.model or model_of(state.keys())
        if given.vit:
            state = with_vit(state, given.vit, given.vit_blocks)
        tensors, vit = convert(state, model)
        text = None
        if model in ("blip2-opt", "blip2-t5"):
            if given.language_model is None:
                raise Problem(f"{model}: expected --language-model DIR, because LAVIS' files do not hold it, got none")
            text, more = language_tensors(model, given.language_model)
            tensors.update(more)
        check_tokenizer(given.tokenizer, model)
        write(given.to, tensors, config_of(model, tensors, vit, text, told), given.tokenizer, given.dtype, given.shard_bytes)
    except Problem as problem:
        print(f"convert-lavis: {problem}", file=sys.stderr)
        return 2
    total = sum(value.numel() for value in tensors.values())
    print(f"{given.to}: {model}, {names['models'][model]['class']}, {len(tensors)} tensors, {total:,} values")
    return 0


if __name__ == "__main__":
    sys.exit(main())
