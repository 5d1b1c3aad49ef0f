import assert from "node:assert/strict";
import path from "node:path";
import { test } from "node:test";
import type { BlipPrograms } from "../../src/models/blip.ts";
import type { OpenedPrograms } from "../../src/models/checked-model.ts";
import { interpolatePositions } from "../../src/models/interpolate-positions.ts";
import { lavisIds, readingQuestions } from "../../src/models/lavis-texts.ts";
import { checkModel } from "../../src/models/model-card.ts";
import { changedBy, lavisBlip, lavisBlip2, lavisBlipVqa, withSettings } from "../../src/models/run-settings.ts";
import { openCheckpoint } from "../../src/weights/checkpoint.ts";
import { fixtures } from "../fixture-files.ts";

const vision = { imageSize: 224, trainedSize: 224, patchSize: 14, normEps: 1e-6, lastNormEps: 1e-6 };

test("a size is taken as it is where the positions were trained with it, and where it is a multiple of the patch", () => {
  const at = (imageSize: number, of = vision) =>
    withSettings("m", { vision: of }, lavisBlip2, { imageSize }).vision.imageSize;
  assert.equal(at(364), 364);
  assert.equal(at(14), 14);
  assert.equal(at(35, { ...vision, trainedSize: 35, patchSize: 8 }), 35, "trained with a rest");
  assert.equal(withSettings("m", { vision }, lavisBlip2).vision.imageSize, 224);
});

test("another size is refused with the nearest that fit", () => {
  const refused = (imageSize: number, message: string) =>
    assert.throws(() => withSettings("m", { vision }, lavisBlip2, { imageSize }), {
      name: "UnsupportedModelError",
      message,
    });
  const start = "--image-size: expected a multiple of 14, the side of a patch of m, got";
  refused(365, `${start} 365; the nearest are 364 and 378`);
  refused(3, `${start} 3; the least is 14`);
});

test("LAVIS' epsilons and sizes", () => {
  const blip = { ...vision, imageSize: 384, trainedSize: 384, patchSize: 16, normEps: 1e-5, lastNormEps: 1e-5 };
  const as = (of: typeof vision, lavis: typeof lavisBlip) =>
    withSettings("m", { vision: of }, lavis, { behaviour: "lavis" }).vision;
  assert.deepEqual(as(blip, lavisBlip), { ...blip, normEps: 1e-6, lastNormEps: 1e-6 });
  assert.deepEqual(as(blip, lavisBlipVqa), { ...blip, imageSize: 480, normEps: 1e-6, lastNormEps: 1e-6 });
  assert.deepEqual(as(vision, lavisBlip2), { ...vision, normEps: 1e-6, lastNormEps: 1e-5 });
  const trained = { ...blip, imageSize: 480, trainedSize: 480 };
  assert.equal(as(trained, lavisBlipVqa).imageSize, 480);
  const chosen = withSettings("m", { vision: blip }, lavisBlipVqa, { behaviour: "lavis", imageSize: 384 });
  assert.equal(chosen.vision.imageSize, 384, "what is chosen wins");
  assert.equal(withSettings("m", { vision: blip }, lavisBlipVqa).vision.normEps, 1e-5, "the default is Hugging Face's");
});

test("CLIP has one behaviour", () => {
  assert.throws(() => withSettings("m", { vision }, null, { behaviour: "lavis" }), {
    name: "UnsupportedModelError",
    message:
      "--behaviour lavis: expected a BLIP or BLIP-2 checkpoint, got m, for which there is one behaviour only; leave it out",
  });
});

test("a card says what differs, and nothing else", () => {
  assert.deepEqual(changedBy(vision, vision, { imageSize: 224, behaviour: "huggingface" }), {});
  assert.deepEqual(changedBy({ ...vision, imageSize: 364 }, vision), {
    settings: { imageSize: 364 },
    vision: { positions: "bicubic" },
  });
  const lavis = { ...vision, lastNormEps: 1e-5 };
  assert.deepEqual(changedBy(lavis, vision, { behaviour: "lavis" }), {
    settings: { behaviour: "lavis" },
    vision: { normEps: [1e-6, 1e-5] },
  });
  assert.deepEqual(changedBy(vision, vision, { behaviour: "lavis" }), { settings: { behaviour: "lavis" } });
});

test("with a chosen size the preprocessor's file need not say it", async () => {
  const checkpoint = await openCheckpoint(path.join(fixtures, "clip", "clip-tiny"));
  const { card } = await checkModel(checkpoint, "f32", { purpose: "labels", settings: { imageSize: 56 } });
  const { height, width, shortestEdge } = card.image;
  assert.deepEqual([height, width, shortestEdge, card.features], [56, 56, 56, [50, 30]]);
  const same = await checkModel(checkpoint, "f32", { purpose: "labels", settings: { imageSize: 35 } });
  assert.deepEqual([same.card.settings, same.card.features], [undefined, [17, 30]]);
});

test("texts as LAVIS has them: cut with the last id kept, another first id where they read an image", () => {
  const texts = { most: 4, imageReader: 99 };
  assert.deepEqual(lavisIds([1, 5, 6, 2], texts, true), [99, 5, 6, 2]);
  assert.deepEqual(lavisIds([1, 5, 6, 7, 8, 2], texts, true), [99, 5, 6, 2]);
  assert.deepEqual(lavisIds([1, 5, 6, 7, 8, 2], texts, false), [1, 5, 6, 2]);
  assert.deepEqual(lavisIds([1, 5, 2], { most: 32 }, true), [1, 5, 2], "BLIP-2 keeps [CLS]");
});

test("a grid of its own size is itself, and beyond the edge the last place is taken again", () => {
  const positions = Float32Array.of(-1, 1, 2, 3, 4);
  const of = { from: 2, width: 1 };
  assert.deepEqual([...interpolatePositions(positions, { ...of, to: 2 })], [-1, 1, 2, 3, 4]);
  const [first, centre] = interpolatePositions(positions, { ...of, to: 1 });
  assert.equal(first, -1, "the class token's stays");
  assert.equal(centre, 2.5);
  assert.throws(() => interpolatePositions(positions, { ...of, from: 3, to: 2 }), {
    name: "ShapeError",
    message: "positions: expected (1 + 3 * 3) * 1 values, got 5 of them",
  });
});

test("questions as LAVIS has them, whether an answer is generated or chosen", () => {
  const seen: number[][] = [];
  const program = {
    name: "reads",
    maxRows: () => 1,
    key: ({ textIds }: { readonly textIds: readonly number[] }) => {
      seen.push([...textIds]);
      return "";
    },
    start: () => assert.fail("no rows are run"),
  };
  const opened = {
    programs: { generate: program, rank: program },
    close() {},
  } as unknown as OpenedPrograms<BlipPrograms>;
  const { generate, rank } = readingQuestions(opened, { most: 4, imageReader: 9 }).programs;
  for (const read of [generate, rank]) (read as typeof program | undefined)?.key({ textIds: [1, 2, 3, 4, 5, 6] });
  assert.deepEqual(seen, [
    [9, 2, 3, 6],
    [9, 2, 3, 6],
  ]);
});
