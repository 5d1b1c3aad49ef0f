// blipfleet search TEXT... --index FILE

import type { Command } from "commander";
import { wholeNumber } from "./generation-options.ts";
import type { SearchResult } from "./local-search.ts";
import {
  addFormatOption,
  addModelOptions,
  type FormatFlag,
  type ModelFlags,
  type OutputFormat,
} from "./model-options.ts";
import { fromHere, oneLine, score, tell, writeJson, writeLine } from "./output.ts";

type Flags = ModelFlags & FormatFlag & { readonly index: string; readonly top: number; readonly rerank?: number };

/** Results shown of each text. */
const defaultTop = 10;
/** Images matched for each text: more find more and cost an encode each; BLIP-2 was evaluated with 128, on GPUs. */
const defaultRerank = 16;
const most = 100_000;

export function addSearchCommand(program: Command): void {
  const command = program
    .command("search")
    .description("Find the images of an index that fit texts best.")
    .argument("<text...>", "one or more texts, each searched for by itself")
    .requiredOption("--index <file>", "what `blipfleet index` made")
    .option("--top <images>", "images shown of each text", wholeNumber("--top", 1, most), defaultTop)
    .option(
      "--rerank <images>",
      `of the images with the largest cosines, match so many with the text and order those anew; 0: none ` +
        `(default: ${defaultRerank}, and 0 with a model that has no matching head)`,
      wholeNumber("--rerank", 0, most),
    );
  addModelOptions(command, "the one that made the index");
  addFormatOption(command);
  command.addHelpText(
    "after",
    `
Every image of the index is compared with every text by cosine (itc), exactly. The first --rerank of them are then read
again and matched with the text by the matching head (itm), and come first, ordered by its logit plus the cosine. CLIP has
no such head: with an index that it made, images are ordered by their cosines.

Output with --format jsonl, --top lines per text, the best first:
  {"text": TEXT, "rank": 1, "image": PATH, "itc": COSINE, "itm": PROBABILITY, or null when it was not matched}
  An image that should have been matched and could not be read has "error": {"type", "message"} as well.

Examples:
  blipfleet search "a dog on a beach" --index photos.index
  blipfleet search "a red car" "two people" --index photos.index --top 3 --rerank 64 --format jsonl
`,
  );
  command.action(async (texts: string[], flags: Flags) => {
    const { searchLocally } = await import("./local-search.ts");
    const { top, rerank, index: file } = flags;
    const asked = rerank === undefined ? {} : { rerank };
    const search = { texts, file, top, defaultRerank, ...asked, model: flags };
    const failures = await searchLocally(search, (results) => print(results, flags.format, texts.length > 1));
    process.exitCode = failures > 0 ? 1 : 0;
  });
}

/** All results of one text. */
function print(results: readonly SearchResult[], format: OutputFormat, isOneOfMany: boolean): void {
  const [first] = results;
  if (format === "text" && first) {
    if (isOneOfMany) writeLine(oneLine(first.text));
    writeLine("rank     itc     itm  image");
  }
  for (const { text, rank, image, itc, itm, error } of results) {
    if (format === "jsonl") {
      const outcome = error ? { error } : {};
      writeJson({ text, rank, image, itc: score(itc), itm: itm === null ? null : score(itm), ...outcome });
      continue;
    }
    const matched = itm === null ? "-" : itm.toFixed(4);
    const path = oneLine(fromHere(image));
    writeLine(`${`${rank}`.padStart(4)}  ${itc.toFixed(4).padStart(6)}  ${matched.padStart(6)}  ${path}`);
    if (error) tell(`${path}: ${error.type}: ${error.message}`);
  }
}
