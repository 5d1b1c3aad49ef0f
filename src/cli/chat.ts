// blipfleet chat IMAGE

import { type Command, Option } from "commander";
import type { PromptLanguage } from "../text/prompts.ts";
import { addGenerationOptions, type GenerationFlags, generationFrom } from "./generation-options.ts";
import {
  addFormatOption,
  addModelOptions,
  addSettingsOptions,
  type FormatFlag,
  type ModelFlags,
} from "./model-options.ts";
import { addStreamOption, type StreamFlag, streamedLine } from "./streamed-line.ts";

type Flags = ModelFlags & FormatFlag & StreamFlag & GenerationFlags & { readonly language?: PromptLanguage };

export function addChatCommand(program: Command): void {
  const command = program
    .command("chat")
    .description("Talk about an image. Runs in this process; no server is needed.")
    .argument("<image>", "image file: JPEG, PNG, WebP, AVIF, GIF (first frame), TIFF");
  addModelOptions(command);
  addSettingsOptions(command);
  addFormatOption(command);
  addStreamOption(command);
  command.addOption(
    new Option(
      "--language <language>",
      "VisualGLM's form of questions; default: Chinese for Chinese questions",
    ).choices(["zh", "en"]),
  );
  addGenerationOptions(command);
  command.addHelpText(
    "after",
    `
Questions are lines of the terminal, or of stdin. Each is answered with the questions and answers before it; the oldest are
left out, and told of, when they no longer fit the model. A line that begins with a slash is a command:
  /clear        forget what was said
  /image FILE   another image, and a conversation from the start
  /quit         end; so does the end of the input

Output with --format jsonl, one line per question:
  {"image": PATH, "turn": NUMBER, "question": QUESTION, "text": REPLY, "token_ids": [...]}
  or, in place of text and token_ids, "error": {"type", "message"}; "left_out" counts turns that no longer fit
VisualGLM's replies are tidied up as its own demo does it: "text" is then not exactly the decode of "token_ids".

Examples:
  blipfleet chat photo.jpg
  printf 'What is it?\\nWhat colour is it?\\n' | blipfleet chat photo.jpg --format jsonl
`,
  );
  command.action(async (image: string, flags: Flags) => {
    const generation = generationFrom(flags);
    const line = streamedLine(flags, flags.format, generation);
    const { chatLocally } = await import("./local-chat.ts");
    const { language } = flags;
    const failures = await chatLocally({
      ...{ image, model: flags, generation, format: flags.format, line },
      ...(language && { language }),
    });
    process.exitCode = failures > 0 ? 1 : 0;
  });
}
