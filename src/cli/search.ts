// blipfleet search TEXT... --index FILE

import type { Command } from "commander";
import { UsageError } from "./errors.ts";
import { wholeNumber } from "./generation-options.ts";
import type { SearchResult, SearchSummary } from "./local-search.ts";
import {
  addFormatOption,
  addModelOptions,
  type FormatFlag,
  type ModelFlags,
  type OutputFormat,
} from "./model-options.ts";
import { fromHere, oneLine, score, tell, writeJson, writeLine } from "./output.ts";
import { expectTextsGiven } from "./texts-given.ts";

type Flags = ModelFlags &
  FormatFlag & {
    readonly index: string;
    readonly image?: readonly string[];
    readonly top: number;
    readonly rerank?: number;
    readonly exact: boolean;
    readonly html?: string;
  };

/** Results shown of each text. */
const defaultTop = 10;
/** Images matched for each text: more find more and cost an encode each; BLIP-2 was evaluated with 128, on GPUs. */
const defaultRerank = 16;
const most = 100_000;

export function addSearchCommand(program: Command): void {
  const command = program
    .command("search")
    .description("Find the images of an index that fit texts best, or that are most like other images.")
    .argument("[text...]", "texts, each searched for by itself")
    .requiredOption("--index <file>", "what `blipfleet index` made")
    .option(
      "--image <file>",
      "search for images like this one; may be repeated",
      (file: string, files: readonly string[] = []) => [...files, file],
    )
    .option("--top <images>", "images shown of each text or image", wholeNumber("--top", 1, most), defaultTop)
    .option(
      "--rerank <images>",
      `of the images with the largest cosines, match so many with the text and order those anew; 0: none ` +
        `(default: ${defaultRerank}, and 0 with a model that has no matching head)`,
      wholeNumber("--rerank", 0, most),
    )
    .option("--exact", "compare every image exactly, though the index has codes", false)
    .option("--html <file>", "also write a page with the pictures; it needs no other file");
  addModelOptions(command, "the one that made the index");
  addFormatOption(command);
  command.addHelpText(
    "after",
    `
Every image of the index is compared with every text by cosine (itc). The first --rerank of them are then read again and
matched with the text by the matching head (itm), and come first, ordered by its logit plus the cosine.
CLIP has no such head: with an index that it made, images are ordered by their cosines.

A large index has codes. From them the cosine of every image is estimated with a known error, and those images whose estimate,
raised by three standard errors, reaches the last place are compared exactly; so at most one result of 740 is expected to be
missing, and scores are the same. stderr says which way was used; --exact compares all images. A search for more than 1 of 64
images is always exact.

--image: the mean, over the vectors of the image that is searched with, of the largest cosine with the other's vectors. The
model defines no score of two images; this one is ours. Nothing is matched again, because the matching head takes a text.

Output with --format jsonl, --top lines per text, the best first:
  {"text": TEXT, "rank": 1, "image": PATH, "itc": COSINE, "itm": PROBABILITY, or null when it was not matched}
  An image that should have been matched and could not be read has "error": {"type", "message"} as well.
then --top lines per --image:
  {"like": FILE, "rank": 1, "image": PATH, "similarity": MEAN OF LARGEST COSINES}

Examples:
  blipfleet search "a dog on a beach" --index photos.index
  blipfleet search "a red car" "two people" --index photos.index --top 3 --rerank 64 --format jsonl
  blipfleet search --image beach.jpg --index photos.index --html found.html
`,
  );
  command.action(search);
}

async function search(texts: string[], flags: Flags): Promise<void> {
  const { index: file, image: images = [], top, rerank, exact, html } = flags;
  if (texts.length + images.length === 0) throw new UsageError("search: expected a text or --image FILE, got neither");
  expectTextsGiven("text", texts);
  const [{ searchLocally }, sheet] = await Promise.all([import("./local-search.ts"), import("./contact-sheet.ts")]);
  if (html !== undefined) await sheet.expectFolderOf(html);
  const all: (readonly SearchResult[])[] = [];
  const asked = {
    ...{ texts, images, file, top, exact, defaultRerank, model: flags },
    ...(rerank === undefined ? {} : { rerank }),
  };
  const summary = await searchLocally(asked, (results) => {
    if (html !== undefined) all.push(results);
    print(results, flags.format, texts.length + images.length > 1);
  });
  tell(wayOf(summary));
  if (html !== undefined) {
    await sheet.writeContactSheet(html, all, { index: file, model: summary.model, way: wayOf(summary) });
    tell(`${fromHere(html)}: the pictures`);
  }
  process.exitCode = summary.failures > 0 ? 1 : 0;
}

/** How the images were compared. */
function wayOf({ images, by, compared }: SearchSummary): string {
  if (by === "all images") return `${images} images, each compared exactly`;
  return `${images} images by their codes, at most ${compared} of them compared exactly; --exact compares all`;
}

/** All results of one text or image. */
function print(results: readonly SearchResult[], format: OutputFormat, isOneOfMany: boolean): void {
  const [first] = results;
  if (format === "text" && first) {
    const isText = "text" in first;
    if (isOneOfMany) writeLine(oneLine(isText ? first.text : fromHere(first.like)));
    writeLine(isText ? "rank     itc     itm  image" : "rank  similarity  image");
  }
  for (const result of results) {
    const { rank, image } = result;
    const path = oneLine(fromHere(image));
    const place = `${rank}`.padStart(4);
    if ("like" in result) {
      const { like, similarity } = result;
      if (format === "jsonl") writeJson({ like, rank, image, similarity: score(similarity) });
      else writeLine(`${place}  ${similarity.toFixed(4).padStart(10)}  ${path}`);
      continue;
    }
    const { text, itc, itm, error } = result;
    if (format === "jsonl") {
      const outcome = error ? { error } : {};
      writeJson({ text, rank, image, itc: score(itc), itm: itm === null ? null : score(itm), ...outcome });
      continue;
    }
    const matched = itm === null ? "-" : itm.toFixed(4);
    writeLine(`${place}  ${itc.toFixed(4).padStart(6)}  ${matched.padStart(6)}  ${path}`);
    if (error) tell(`${path}: ${error.type}: ${error.message}`);
  }
}
