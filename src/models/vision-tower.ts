// The stage encode of BLIP-2, whose image encoder is one of two: EVA-CLIP's ViT-g, or CLIP's ViT-L/14. Upstream of the second:
// salesforce/LAVIS 506965b, models/clip_vit.py, create_clip_vit_L, and `ln_vision` in models/blip2_models/blip2.py.
//
// CLIP's has a norm before its blocks, quick GELU, and patches without a bias. LAVIS takes 23 of its 24 blocks, leaves out its
// last norm, and puts one of BLIP-2's own over all tokens; that one has the place of post_layernorm.

import { handOver } from "../kernels/hand-over.ts";
import { layerNorm } from "../kernels/layer-norm.ts";
import type { Norm } from "../kernels/weights.ts";
import { type Activation, activationType, type CheckpointCard, type Pixels } from "../stages.ts";
import { type ClipVisionWeights, visionBlocks, widestOfVision } from "./clip.ts";
import type { ClipVisionConfig } from "./clip-config.ts";
import type { VisionConfig } from "./config-parts.ts";
import { UnsupportedModelError } from "./errors.ts";
import { given } from "./given.ts";
import { encodePlan, encodeStage } from "./image-stage.ts";
import type { Part, StagePlan } from "./staged-program.ts";
import type { VitWeights } from "./vit.ts";

export interface ClipTowerWeights extends ClipVisionWeights {
  /** Over all tokens, after the last block. */
  readonly norm: Norm;
}

/** The stage encode of BLIP-2: pixels -> features. */
export function blip2EncodePlan(
  w: VitWeights | ClipTowerWeights,
  vision: VisionConfig | ClipVisionConfig,
  card: CheckpointCard,
): StagePlan<Pixels, Activation> {
  if ("preNorm" in w && "activation" in vision) {
    return encodeStage(card, clipTowerParts(w, vision, card), widestOfVision(vision));
  }
  if (!("preNorm" in w) && !("activation" in vision)) return encodePlan(w, vision, card);
  throw new UnsupportedModelError(
    `${card.ref}: expected weights of the image encoder that config.json names, got others`,
  );
}

/** pixels (batch * 3, height, width) -> features (batch * tokens, width) in the type of a hand-over */
export function clipTowerParts(
  w: ClipTowerWeights,
  vision: ClipVisionConfig,
  card: Pick<CheckpointCard, "image" | "features" | "dtype">,
): readonly Part[] {
  const end: Part = {
    cost: 0,
    run: (k, [x]) => [handOver(k, layerNorm(k, given(x), w.norm), activationType(card.dtype))],
  };
  return [...visionBlocks(w, vision, card), end];
}
