// The stages of models as every caller sees them: pixels and text on io threads, the rest on the GPU thread.

import { availableParallelism } from "node:os";
import path from "node:path";
import { Piscina } from "piscina";
import type { AdapterReport } from "../gpu/adapter.ts";
import type { WorkingBytes } from "../gpu/row-program.ts";
import type { VariantReport } from "../gpu/variants.ts";
import type { Purpose } from "../models/families.ts";
import type { MemoryPlan } from "../models/memory-plan.ts";
import type {
  Activation,
  AttentionMaps,
  CheckpointCard,
  ContrastCard,
  ContrastStages,
  Generation,
  LabelCard,
  LabelStages,
  MatchLogits,
  ModelCard,
  Pixels,
  QueryOptions,
  RankOptions,
  RetrievalStages,
  RowOptions,
  Stages,
  TextOptions,
  Vectors,
} from "../stages.ts";
import { lavisText } from "../text/prompts.ts";
import type { WeightsProgress } from "../weights/repository.ts";
import { type GpuHost, openGpuHost } from "./gpu-host.ts";
import type { GpuStats, GpuThreadOptions, ModelRequest, ProgramName, ThreadModel } from "./gpu-protocol.ts";
import type { IoTask, IoTasks } from "./io-thread.ts";
import { type ErrorRecord, fromRecord } from "./thread-error.ts";
import { untilStopped } from "./until-stopped.ts";

/** A call for a stage that this process does not serve. */
export class StageError extends Error {
  override name = "StageError";
}

export interface StagesGroupOptions {
  /** The cache folder: remembers a passed self-test, and has the table that `blipfleet tune` made. */
  readonly cacheFolder: string;
  /** Run the self-test although a pass is remembered. Default false. */
  readonly testAnyway?: boolean;
  /** Told lines for people, as about a kernel's variant that this adapter refuses. Default: stderr. */
  readonly tell?: (line: string) => void;
  readonly bindingLimit?: number;
  readonly validation?: boolean;
  /** Threads for images and text. Default: one fewer than the machine's, at most 8. */
  readonly ioThreads?: number;
  /** URL of the module that has selfTest and loadModel. Default: the real one. */
  readonly models?: string;
}

/** What a model takes on the adapter. */
export interface Planned {
  /** Bytes of weights by part. */
  readonly memory: MemoryPlan;
  /** What one row under way takes beside them, under default settings. */
  readonly rowBytes: WorkingBytes;
}

/** A model that writes texts, served by this process. */
export interface OpenedStages extends Stages, Planned {}

/** A model that compares images with texts, served by this process. */
export interface OpenedContrastStages extends ContrastStages, Planned {}

/** The same of one that classifies. */
export interface OpenedLabelStages extends LabelStages, Planned {}

/** The same of one that has a matching head. */
export interface OpenedRetrievalStages extends RetrievalStages, Planned {}

/** The stages of a model by what it is opened for. */
export interface OpenedFor {
  texts: OpenedStages;
  captions: OpenedStages;
  answers: OpenedStages;
  matches: OpenedRetrievalStages;
  vectors: OpenedContrastStages;
  labels: OpenedLabelStages;
}

/** All models of one process: one GPU thread, one pool of io threads. */
export interface StagesGroup {
  readonly report: AdapterReport;
  readonly selfTest: "passed" | "remembered";
  /** The kernels' variants as they were after the self-test. */
  readonly variants: VariantReport;
  /** Resolves with the error after which nothing works; the process should end with it as its last line. */
  readonly fatal: Promise<Error>;
  /**
   * Load a model, by default one that writes texts. Closing the returned stages does not free it; close the group.
   * @throws what loadModel throws, TokenizerError
   */
  open<P extends Purpose = "texts">(
    request: ModelRequest<P>,
    onProgress?: (progress: WeightsProgress) => void,
  ): Promise<OpenedFor[P]>;
  stats(): Promise<GpuStats>;
  /** `drain` finishes what was asked, `reject` gives it up at the next submit boundary. */
  close(how?: "drain" | "reject"): Promise<void>;
}

/**
 * Start the threads, open the adapter, pass the self-test.
 * @throws AdapterError, KernelError
 */
export async function openStagesGroup(options: StagesGroupOptions): Promise<StagesGroup> {
  const threadOptions: GpuThreadOptions = {
    cacheFolder: options.cacheFolder,
    models: options.models ?? new URL("./gpu-models.js", import.meta.url).href,
    ...(options.bindingLimit === undefined ? {} : { bindingLimit: options.bindingLimit }),
    ...(options.validation === undefined ? {} : { validation: options.validation }),
    ...(options.testAnyway === undefined ? {} : { testAnyway: options.testAnyway }),
  };
  const host = await openGpuHost(threadOptions, options.tell ?? ((line) => process.stderr.write(`${line}\n`)));
  const { report, selfTest, variants } = await host.opened;
  const io = new IoPool(options.ioThreads ?? Math.min(8, Math.max(1, availableParallelism() - 1)));
  return {
    report,
    selfTest,
    variants,
    fatal: host.fatal,
    async open<P extends Purpose = "texts">(
      request: ModelRequest<P>,
      onProgress?: (progress: WeightsProgress) => void,
    ): Promise<OpenedFor[P]> {
      const model = await host.load(request, onProgress);
      const { programs, folder } = model;
      // A checkpoint whose tokenizer cannot be used fails here, not at every item.
      if (programs.includes("generate") || programs.includes("queryText")) {
        await io.run("tokenize", { folder, text: "" });
      }
      if (programs.includes("queryInstructed")) {
        await io.run("tokenize", { folder: path.join(folder, "qformer_tokenizer"), text: "" });
      }
      const make: ThreadedFor[P] = threaded[(request.purpose ?? "texts") as P];
      return make(host, io, model, async () => {});
    },
    stats: () => host.stats(),
    async close(how = "drain") {
      await Promise.all([host.close(how), io.close()]);
    },
  };
}

/** The stages of one model, by default one that writes texts, alone in its process. Closing them closes the threads. */
export async function openStages<P extends Purpose = "texts">(
  options: StagesGroupOptions & ModelRequest<P>,
): Promise<OpenedFor[P]> {
  const group = await openStagesGroup(options);
  try {
    const { ref, dtype, stages, purpose, settings } = options;
    const opened = await group.open<P>({
      ...{ ref, dtype },
      ...(stages === undefined ? {} : { stages }),
      ...(settings === undefined ? {} : { settings }),
      ...(purpose === undefined ? {} : { purpose }),
    });
    return Object.assign(opened, { close: () => group.close() });
  } catch (error) {
    await group.close("reject");
    throw error;
  }
}

/** Piscina, with errors that keep their class name. */
class IoPool {
  readonly #pool: Piscina;

  constructor(threads: number) {
    this.#pool = new Piscina({
      filename: new URL("./io-thread.js", import.meta.url).href,
      name: "run",
      minThreads: 1,
      maxThreads: threads,
      // Threads above the least linger, or every burst would parse tokenizers anew.
      idleTimeout: 30_000,
      // Piscina's own busy wait between tasks would take a core from the kernels of a software adapter.
      atomics: "disabled",
    });
  }

  async run<Name extends keyof IoTasks>(name: Name, task: Parameters<IoTasks[Name]>[0]): Promise<IoResult<Name>> {
    const outcome: { readonly value: IoResult<Name> } | { readonly error: ErrorRecord } = await this.#pool.run({
      name,
      task,
    } as IoTask);
    if ("error" in outcome) throw fromRecord(outcome.error);
    return outcome.value;
  }

  close(): Promise<void> {
    return this.#pool.close();
  }
}

type IoResult<Name extends keyof IoTasks> = Awaited<ReturnType<IoTasks[Name]>>;

/** What all kinds of models have. */
class ThreadedImageStages<Card extends CheckpointCard> {
  readonly card: Card;
  readonly memory: MemoryPlan;
  readonly rowBytes: WorkingBytes;
  readonly close: () => Promise<void>;
  readonly #host: GpuHost;
  readonly #io: IoPool;
  readonly #model: ThreadModel;

  constructor(host: GpuHost, io: IoPool, model: ThreadModel, close: () => Promise<void>) {
    // The thread loads the kind that was asked for, or refuses.
    this.card = model.card as CheckpointCard as Card;
    this.memory = model.memory;
    this.rowBytes = model.rowBytes;
    this.close = close;
    this.#host = host;
    this.#io = io;
    this.#model = model;
  }

  toPixels(image: Uint8Array, frame = 0): Promise<Pixels> {
    return this.#io.run("toPixels", { image, settings: this.card.image, ...(frame > 0 && { frame }) });
  }

  encode(pixels: Pixels, options?: RowOptions): Promise<Activation> {
    return this.row("encode", pixels, options) as Promise<Activation>;
  }

  /** @param part the folder within the checkpoint that holds the tokenizer; left out: the checkpoint's own */
  protected idsOf(text: string | null, part = ""): Promise<number[]> {
    return this.#io.run("tokenize", { folder: path.join(this.#model.folder, part), text });
  }

  protected answerIdsOf(text: string): Promise<number[]> {
    return this.#io.run("tokenizeAnswer", { folder: this.#model.folder, text });
  }

  protected textOf(ids: readonly number[]): Promise<string> {
    return this.#io.run("detokenize", { folder: this.#model.folder, ids });
  }

  protected lengthAtStop(
    ids: readonly number[],
    stopStrings: readonly string[],
    checked: number,
  ): Promise<number | null> {
    return this.#io.run("stopLength", { folder: this.#model.folder, ids, stopStrings, checked });
  }

  protected row(
    program: ProgramName,
    input: unknown,
    options: RowOptions | undefined,
    onPartial?: (value: unknown) => void,
  ): Promise<unknown> {
    const { model, programs } = this.#model;
    if (!programs.includes(program)) {
      const error = new StageError(
        `stages: expected ${String(program)} of ${this.card.ref} to be served here, got ${programs.join(", ")}`,
      );
      return Promise.reject(error);
    }
    return this.#host.run(model, program, input, options, onPartial);
  }
}

class ThreadedStages extends ThreadedImageStages<ModelCard> implements OpenedStages {
  query(features: Activation, { instructionIds, ...options }: QueryOptions = {}): Promise<Activation> {
    if (instructionIds === undefined) return this.row("query", features, options) as Promise<Activation>;
    return this.row("queryInstructed", { features, instructionIds }, options) as Promise<Activation>;
  }

  encodeAndQuery(pixels: Pixels, options?: RowOptions): Promise<Activation> {
    return this.row("encodeAndQuery", pixels, options) as Promise<Activation>;
  }

  tokenize(text: string | null): Promise<number[]> {
    return this.idsOf(text);
  }

  tokenizeInstruction(text: string): Promise<number[]> {
    return this.idsOf(text, "qformer_tokenizer");
  }

  tokenizeAnswer(text: string): Promise<number[]> {
    return this.answerIdsOf(text);
  }

  generate(
    prompt: Activation,
    textIds: readonly number[],
    generation: Generation,
    { image, onIds, ...options }: TextOptions = {},
  ): Promise<number[]> {
    const input = { prompt, textIds, generation, ...(image !== undefined && { image }) };
    const make = (tell: TextOptions["onIds"], row: RowOptions) =>
      this.row("generate", input, row, tell as (ids: unknown) => void) as Promise<number[]>;
    const { stopStrings } = generation;
    if (stopStrings.length === 0) return make(onIds, options);
    return untilStopped(
      (tell, signal) => make(tell, { ...options, signal }),
      (ids, checked) => this.lengthAtStop(ids, stopStrings, checked),
      { signal: options.signal, onIds },
    );
  }

  rank(
    prompt: Activation,
    textIds: readonly number[],
    answers: readonly (readonly number[])[],
    { keep, ...options }: RankOptions = {},
  ): Promise<(number | null)[]> {
    const input = { prompt, textIds, answers, ...(keep !== undefined && { keep }) };
    return this.row("rank", input, options) as Promise<(number | null)[]>;
  }

  attention(features: Activation, ids: readonly number[], options?: RowOptions): Promise<AttentionMaps> {
    return this.row("attention", { features, ids }, options) as Promise<AttentionMaps>;
  }

  detokenize(ids: readonly number[]): Promise<string> {
    return this.textOf(ids);
  }
}

class ThreadedContrastStages<Card extends ContrastCard>
  extends ThreadedImageStages<Card>
  implements OpenedContrastStages
{
  tokenize(text: string): Promise<number[]> {
    return this.idsOf(this.card.settings?.behaviour === "lavis" ? lavisText(text) : text);
  }

  queryImage(features: Activation, options?: RowOptions): Promise<Vectors> {
    return this.row("queryImage", features, options) as Promise<Vectors>;
  }

  queryText(textIds: readonly number[], options?: RowOptions): Promise<Vectors> {
    return this.row("queryText", textIds, options) as Promise<Vectors>;
  }
}

class ThreadedRetrievalStages extends ThreadedContrastStages<ContrastCard> implements OpenedRetrievalStages {
  queryBoth(features: Activation, textIds: readonly number[], options?: RowOptions): Promise<MatchLogits> {
    return this.row("queryBoth", { features, textIds }, options) as Promise<MatchLogits>;
  }
}

type ThreadedFor = {
  readonly [P in Purpose]: (...given: ConstructorParameters<typeof ThreadedImageStages>) => OpenedFor[P];
};

/** By what a model is opened for. */
const threaded: ThreadedFor = {
  texts: (...given) => new ThreadedStages(...given),
  captions: (...given) => new ThreadedStages(...given),
  answers: (...given) => new ThreadedStages(...given),
  matches: (...given) => new ThreadedRetrievalStages(...given),
  vectors: (...given) => new ThreadedContrastStages<ContrastCard>(...given),
  labels: (...given) => new ThreadedContrastStages<LabelCard>(...given),
};
