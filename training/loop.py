"""The training loop that every part shares: optimisers, schedule, checkpoints, curve.

Matrices inside the transformer layers go to Muon, all else to AdamW. A run that is killed goes on from its last checkpoint;
step n draws its rows from n alone, so the curve is the same.
"""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path
from typing import Callable

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin take the cores from whatever else runs

import torch
from torch import nn

from muon import Muon

Losses = tuple[torch.Tensor, dict[str, torch.Tensor]]


def matrices(layers: nn.Module) -> list[nn.Parameter]:
    """The weights that Muon trains: all that are 2-D in these layers."""
    return [p for p in layers.parameters() if p.ndim == 2]


def train(
    *,
    name: str,
    out: Path,
    module: nn.Module,
    inner: list[nn.Parameter],
    steps: int,
    step_loss: Callable[[int], Losses],
    look: Callable[[], dict],
    look_every: int,
    rate: float = 1.5e-3,
    inner_rate: float = 2e-3,
    decay: float = 0.05,
    save_every: int = 500,
    warm_up: int = 300,
) -> None:
    """Train `module` for `steps` steps; writes <out>/<name>.pt and <out>/<name>-curve.jsonl.

    inner: the 2-D weights that Muon trains. step_loss(n): the loss of step n and its parts. look(): figures of the
    development sets, every `look_every` steps. Rates warm up and then fall as a cosine to 2 % of their height.
    """
    out.mkdir(parents=True, exist_ok=True)
    is_inner = {id(p) for p in inner}
    rest = [p for p in module.parameters() if id(p) not in is_inner and p.requires_grad]
    optimisers = [
        torch.optim.AdamW(
            [
                {"params": [p for p in rest if p.ndim > 1], "weight_decay": decay},
                {"params": [p for p in rest if p.ndim <= 1], "weight_decay": 0.0},
            ],
            lr=rate,
            betas=(0.9, 0.98),
        ),
        Muon(inner, lr=inner_rate, weight_decay=decay),
    ]
    heights = [rate, inner_rate]
    checkpoint, curve = out / f"{name}.pt", out / f"{name}-curve.jsonl"
    step = 0
    if checkpoint.exists():
        state = torch.load(checkpoint)
        module.load_state_dict(state["module"])
        for optimiser, saved in zip(optimisers, state["optimisers"]):
            optimiser.load_state_dict(saved)
        step = state["step"]
        print(f"{name}: going on from step {step}", flush=True)
        lines = [line for line in curve.read_text().splitlines() if json.loads(line)["step"] <= step]
        curve.write_text("".join(line + "\n" for line in lines))
    else:
        curve.write_text("")
    started, first = time.time(), step
    module.train()
    while step < steps:
        share = min(1.0, (step + 1) / warm_up) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))
        for optimiser, height in zip(optimisers, heights):
            for group in optimiser.param_groups:
                group["lr"] = height * share
        total, parts = step_loss(step)
        for optimiser in optimisers:
            optimiser.zero_grad()
        total.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        for optimiser in optimisers:
            optimiser.step()
        step += 1
        last = step == steps
        if step % 100 == 0 or last:
            seconds = (time.time() - started) / (step - first)
            line = {"step": step, **{part: round(value.item(), 4) for part, value in parts.items()}, "seconds": round(seconds, 3)}
            if step % look_every == 0 or last:
                line |= look()
            print(f"{name}: {json.dumps(line)}", flush=True)
            with curve.open("a") as file:
                file.write(json.dumps(line) + "\n")
        if step % save_every == 0 or last:
            state = {"module": module.state_dict(), "optimisers": [o.state_dict() for o in optimisers], "step": step}
            torch.save(state, checkpoint.with_suffix(".new"))
            os.replace(checkpoint.with_suffix(".new"), checkpoint)
