"""BLIP-2's vision tower and OPT-2.7b's decoding in Hugging Face transformers, fp16 with random weights of the true shapes.

One JSON line {name, value, unit} for each figure on standard output; names are those of bench:gpu, with the setting behind.
Ends with status 1 and one sentence where there is no PyTorch with CUDA, or no transformers.
"""

import argparse
import json
import sys
import time


def missing():
    try:
        import torch
    except ImportError:
        return "expected PyTorch, found none"
    if not torch.cuda.is_available():
        return "expected PyTorch with CUDA, got one without"
    try:
        import transformers  # noqa: F401
    except ImportError:
        return "expected transformers, found none"
    return None


def tell(name, value, unit):
    print(json.dumps({"name": name, "value": value, "unit": unit}), flush=True)


def median_seconds(run, rounds):
    import torch

    run()
    times = []
    for _ in range(rounds):
        torch.cuda.synchronize()
        started = time.perf_counter()
        run()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return sorted(times)[len(times) // 2]


def vision(quick):
    import torch
    from transformers import Blip2VisionConfig, Blip2VisionModel

    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    # The class defaults are ViT-g.
    config = Blip2VisionConfig(**(small if quick else {}))
    model = Blip2VisionModel(config).half().cuda().eval()
    for batch in [1, 2] if quick else [1, 8, 32]:
        pixels = torch.randn(batch, 3, 224, 224, dtype=torch.float16, device="cuda")
        seconds = median_seconds(lambda: model(pixel_values=pixels), 10)
        tell(f"vit-g images, batch {batch}, f16, eager", batch / seconds, "images/s")


def decoding(quick):
    import torch
    from transformers import OPTConfig, OPTForCausalLM

    sizes = {
        "hidden_size": 16 if quick else 2560,
        "word_embed_proj_dim": 16 if quick else 2560,
        "ffn_dim": 32 if quick else 10240,
        "num_hidden_layers": 2 if quick else 32,
        "num_attention_heads": 2 if quick else 32,
        "vocab_size": 64 if quick else 50304,
        "max_position_embeddings": 2048,
    }
    with torch.device("cuda"):
        torch.set_default_dtype(torch.float16)
        model = OPTForCausalLM(OPTConfig(**sizes)).eval()
        torch.set_default_dtype(torch.float32)
    many, few = (4, 2) if quick else (96, 32)
    for batch in [1, 2] if quick else [1, 8, 32]:
        # As many positions as a visual prompt and the first id.
        embeds = torch.randn(batch, 33, sizes["hidden_size"], dtype=torch.float16, device="cuda")
        mask = torch.ones(batch, 33, dtype=torch.long, device="cuda")

        def generate(tokens, **settings):
            return model.generate(
                inputs_embeds=embeds,
                attention_mask=mask,
                do_sample=False,
                min_new_tokens=tokens,
                max_new_tokens=tokens,
                pad_token_id=1,
                **settings,
            )

        for setting, options in (
            ("eager", {}),
            # With a static cache generate() compiles the step by itself.
            ("static cache, compiled", {"cache_implementation": "static"}),
        ):
            try:
                longer = median_seconds(lambda: generate(many, **options), 3)
                shorter = median_seconds(lambda: generate(few, **options), 3)
            except Exception as error:  # one setting that fails must not take the others with it
                print(f"{setting}: {error}".splitlines()[0], file=sys.stderr)
                continue
            step = (longer - shorter) / (many - few)
            tell(f"opt-2.7b decode, batch {batch}, f16, {setting}", batch / step, "tokens/s")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    problem = missing()
    if problem:
        print(problem, file=sys.stderr)
        return 1
    import torch

    with torch.inference_mode():
        decoding(arguments.quick)
        vision(arguments.quick)
    return 0


if __name__ == "__main__":
    sys.exit(main())
