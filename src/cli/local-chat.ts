// A conversation in this process: lines in, replies out.

import { createInterface, type Interface } from "node:readline";
import { type Chat, openChat, type Reply } from "../chatting.ts";
import { type Family, families } from "../models/families.ts";
import type { Generation, ModelCard, Stages } from "../stages.ts";
import type { PromptLanguage } from "../text/prompts.ts";
import { describeError, UsageError } from "./errors.ts";
import { insteadOfFolder, namingFile, readImageFile } from "./image-files.ts";
import { chooseLocalModel, withModel } from "./local-model.ts";
import type { ModelFlags, OutputFormat } from "./model-options.ts";
import { oneLine, tell, writeJson, writeLine } from "./output.ts";
import { Progress } from "./progress.ts";
import type { StreamedLine } from "./streamed-line.ts";

export interface LocalChat {
  readonly image: string;
  readonly model: ModelFlags;
  readonly generation: Generation;
  readonly format: OutputFormat;
  /** Where replies are written as they come. */
  readonly line: StreamedLine | null;
  readonly language?: PromptLanguage;
  /** Default: stdin. */
  readonly input?: NodeJS.ReadableStream & { readonly isTTY?: boolean };
}

/**
 * Answer lines until they end.
 * @returns how many questions and commands failed
 * @throws ImageError for the first image, UsageError, and what keeps a model from being loaded; InterruptedError after Ctrl-C
 */
export async function chatLocally(run: LocalChat): Promise<number> {
  const model = await chooseLocalModel(run.model, "answers");
  return withModel(model, "the conversation has ended", async ({ stages, signal, fatal }) => {
    expectHasLanguages(run.language, stages.card);
    const talk = new Conversation(run, stages, signal);
    await talk.open(run.image);
    const lines = openLines(run.input ?? process.stdin, signal);
    try {
      let failures = 0;
      for await (const line of lines) {
        const outcome = await talk.hear(line.trim());
        if (outcome === "failed") failures += 1;
        if (outcome === "over" || fatal() !== null) break;
        lines.prompt();
      }
      signal.throwIfAborted();
      return failures;
    } finally {
      lines.close();
    }
  });
}

/** @throws UsageError for --language with a model that has one form of questions */
function expectHasLanguages(language: PromptLanguage | undefined, { ref, family }: ModelCard): void {
  if (language === undefined || family === "visualglm") return;
  const { architecture } = families[family as Family];
  throw new UsageError(`--language: expected VisualGLM, got ${ref}, ${architecture}; leave it out`);
}

/** Lines, asked for where somebody sits at a terminal; the prompt goes to stderr, for stdout carries replies. */
function openLines(input: NonNullable<LocalChat["input"]>, signal: AbortSignal): Interface {
  const asks = input.isTTY === true && process.stderr.isTTY === true;
  const lines = createInterface({ input, ...(asks && { output: process.stderr, prompt: "> " }), signal });
  // A terminal that readline has taken over sends no signal by itself.
  lines.on("SIGINT", () => process.kill(process.pid, "SIGINT"));
  if (asks) lines.prompt();
  else lines.prompt = () => {};
  return lines;
}

class Conversation {
  readonly #run: LocalChat;
  readonly #stages: Stages;
  readonly #signal: AbortSignal;
  readonly #progress = new Progress(1, { noun: "questions" });
  #image = "";
  #chat: Chat | undefined;

  constructor(run: LocalChat, stages: Stages, signal: AbortSignal) {
    this.#run = run;
    this.#stages = stages;
    this.#signal = signal;
  }

  /** @throws ImageError; the image before stays */
  async open(image: string): Promise<void> {
    const { generation, language } = this.#run;
    const options = { generation, signal: this.#signal, ...(language && { language }) };
    const bytes = await readImageFile(image, insteadOfFolder.file);
    this.#chat = await namingFile(image, () => openChat(this.#stages, bytes, options));
    this.#image = image;
  }

  async hear(line: string): Promise<"heard" | "failed" | "over"> {
    if (line === "") return "heard";
    if (line === "/quit") return "over";
    if (line.startsWith("/")) return this.#command(line);
    return this.#question(line);
  }

  async #command(line: string): Promise<"heard" | "failed"> {
    const [, image] = /^\/image\s+(.+)$/.exec(line) ?? [];
    if (line === "/clear") {
      this.#chat?.clear();
      return "heard";
    }
    if (image === undefined) {
      tell(`chat: expected /clear, /image FILE or /quit, got ${line}`);
      return "failed";
    }
    try {
      await this.open(image);
      return "heard";
    } catch (error) {
      this.#signal.throwIfAborted();
      const { type, message } = describeError(error);
      tell(`${type}: ${message}; the conversation about ${this.#image} goes on`);
      return "failed";
    }
  }

  async #question(question: string): Promise<"heard" | "failed"> {
    const { line } = this.#run;
    const onText = line && ((text: string) => line.show("", text, this.#progress));
    try {
      const reply = await this.#chat?.ask(question, { ...(onText && { onText }) });
      if (reply) this.#print(question, reply);
      return "heard";
    } catch (error) {
      this.#signal.throwIfAborted();
      this.#printError(question, error);
      return "failed";
    }
  }

  #print(question: string, { text, tokenIds: token_ids, turn, leftOut }: Reply): void {
    const { format, line } = this.#run;
    if (leftOut) {
      const { turns, needed, available } = leftOut;
      tell(
        `chat: expected at most ${available} positions, got ${needed} with all that was said; ` +
          `answered without the oldest ${turns === 1 ? "turn" : `${turns} turns`}`,
      );
    }
    const less = leftOut && { left_out: leftOut.turns };
    if (format === "jsonl") writeJson({ image: this.#image, turn, question, text, token_ids, ...less });
    else if (line) line.finish("", text, this.#progress);
    else writeLine(oneLine(text));
  }

  #printError(question: string, cause: unknown): void {
    const { format, line } = this.#run;
    const error = describeError(cause);
    line?.abandon();
    if (format === "jsonl") writeJson({ image: this.#image, question, error });
    else tell(`${error.type}: ${error.message}`);
  }
}
