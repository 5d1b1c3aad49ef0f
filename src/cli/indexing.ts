// blipfleet index IMAGES_OR_FOLDER... --out FILE

import { type Command, Option } from "commander";
import type { WhenCoded } from "../search/vector-file-writer.ts";
import { addImageFolderOption, type ImageFolderFlag } from "./image-folder-option.ts";
import type { IndexResult } from "./indexing-update.ts";
import {
  addFormatOption,
  addModelOptions,
  addSettingsOptions,
  type FormatFlag,
  type ModelFlags,
  type OutputFormat,
} from "./model-options.ts";
import { fromHere, tell, writeJson, writeLine } from "./output.ts";
import type { Progress } from "./progress.ts";

type Flags = ModelFlags &
  FormatFlag &
  ImageFolderFlag & { readonly out: string; readonly vectors?: "full" | "int8"; readonly codes: WhenCoded };

export function addIndexCommand(program: Command): void {
  const command = program
    .command("index")
    .description("Make images searchable by text: encode them once, and keep their vectors in a file.")
    .argument(
      "<source...>",
      "image files, folders with images at any depth, and lists as jobs read them: .txt, .jsonl (also a job's output), .csv",
    )
    .requiredOption("--out <file>", "the index; what is in it stays, and images that it has are not encoded again");
  command
    .addOption(
      new Option("--vectors <type>", "how vectors are stored (default: as the index has them, else full)").choices([
        "full",
        "int8",
      ]),
    )
    .addOption(
      new Option("--codes <when>", "codes by which a large index is searched faster")
        .choices(["auto", "always", "never"])
        .default("auto"),
    );
  addImageFolderOption(command);
  addModelOptions(command, "the demo model that compares images with texts");
  addSettingsOptions(command);
  addFormatOption(command);
  command.addHelpText(
    "after",
    `
Images are known by their bytes: a file that was moved or copied is not encoded again, one that was changed is. The file is
replaced at the end, or at Ctrl-C with what is done by then; what a run that was killed had encoded is taken over by the next.
It is a safetensors file, described in src/search/vector-file-format.ts.

--vectors full stores what the model gives, in the type of its run; int8 takes a quarter of f32's room, half of f16's, and
moves cosines by about 0.0005. --codes auto adds codes, a quarter of int8's room, from 2^28 stored values on (32,768 images of
32 vectors of 256); see \`blipfleet search --help\`.

Output with --format jsonl, one line per image in the order given:
  {"image": PATH, "digest": SHA256, "state": "encoded" or "kept"}   or   {"image": PATH, "error": {"type", "message"}}

Examples:
  blipfleet index photos --out photos.index
  blipfleet index new/*.jpg --out photos.index
  blipfleet index captions.jsonl --images photos --out photos.index
  blipfleet search "a dog on a beach" --index photos.index
`,
  );
  command.action(async (sources: string[], flags: Flags) => {
    const { indexLocally } = await import("./local-indexing.ts");
    const done = await indexLocally(
      { sources, imageFolder: flags.images, file: flags.out, model: flags, vectors: flags.vectors, codes: flags.codes },
      (result, progress) => print(result, flags.format, progress),
    );
    const { encoded, kept, recovered, failed, images } = done;
    const failures = failed > 0 ? `, ${failed} failed` : "";
    const rescued = recovered > 0 ? `, ${recovered} taken over from a run that was killed` : "";
    const line = `${fromHere(flags.out)}: ${encoded} encoded, ${kept} kept${rescued}${failures}; ${images} images in all`;
    if (flags.format === "jsonl") tell(line);
    else writeLine(line);
    process.exitCode = failed > 0 ? 1 : 0;
  });
}

function print(result: IndexResult, format: OutputFormat, progress: Progress): void {
  const { image } = result;
  if (format === "jsonl") {
    writeJson("error" in result ? { image, error: result.error } : result, progress);
  } else if ("error" in result) {
    progress.clear();
    tell(`${image}: ${result.error.type}: ${result.error.message}`);
  }
}
