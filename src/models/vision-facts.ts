// What a check says of the ViT and the images of BLIP and BLIP-2.

import { type Checkpoint, readSettings } from "../weights/checkpoint.ts";
import { blip2ImageSettings } from "./blip-2-config.ts";
import { type ChangingVision, type CheckOptions, isResized } from "./run-settings.ts";

/**
 * @param config of this run
 * @param written as the checkpoint has it
 * @throws as blip2ImageSettings
 */
export async function visionFacts<V extends ChangingVision>(
  checkpoint: Checkpoint,
  { vision }: { readonly vision: V },
  written: { readonly vision: V },
  { settings }: CheckOptions,
) {
  const json = await readSettings(checkpoint, "preprocessor_config.json");
  const image = blip2ImageSettings(checkpoint.ref, json, vision.imageSize, isResized(vision, settings));
  return { vision, written: written.vision, image };
}
