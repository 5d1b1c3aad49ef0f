// The stage nouns as types: what flows from an image to a text, and the three stages between.
//
//     image bytes -> pixels -> features -> prompt -> token ids -> text
//                    toPixels  ENCODE      QUERY     GENERATE     detokenize

/** Preprocessed image: (3, height, width) f32, row-major, normalised. */
export interface Pixels {
  readonly data: Float32Array;
  readonly height: number;
  readonly width: number;
}

/** How an activation is stored at a hand-over between stages: f32 under `--dtype f32`, else f16. */
export type ActivationType = "f32" | "f16";

/**
 * What passes between stages. `features`: (tokens, width) of the ViT. `prompt`: (queries, llmWidth) of the Q-Former.
 * bytes are little-endian, row-major, in `type`.
 */
export interface Activation {
  readonly kind: "features" | "prompt";
  readonly type: ActivationType;
  readonly shape: readonly [number, number];
  readonly bytes: Uint8Array;
}

/** As what a model is run: weights of f32 or f16, or of whole numbers, with which all else is as with f16. */
export const dtypes = ["f32", "f16", "int8", "int4"] as const;
export type Dtype = (typeof dtypes)[number];

/** The type of what is handed over between stages. */
export function activationType(dtype: Dtype): ActivationType {
  return dtype === "f32" ? "f32" : "f16";
}

/** How a checkpoint is run where that is a choice; plain JSON. What is left out is as the checkpoint has it. */
export interface RunSettings {
  /**
   * Side in pixels of the square that an image becomes. Where the ViT was trained with another one, its positions are
   * interpolated.
   */
  readonly imageSize?: number | undefined;
  /** Whose code is followed where transformers and LAVIS, the original, differ. Default "huggingface". */
  readonly behaviour?: Behaviour | undefined;
}

export type Behaviour = "huggingface" | "lavis";

/**
 * Unit vectors by which images and texts are compared, one a row: (queries, width) of an image, (1, width) of a text.
 * bytes as in an Activation.
 */
export interface Vectors {
  readonly type: ActivationType;
  readonly shape: readonly [number, number];
  readonly bytes: Uint8Array;
}

/** What the matching head says of an image and a text, averaged over queries where there are some: [no match, match]. */
export type MatchLogits = readonly [number, number];

/**
 * Where in an image somebody looked: for each of some lookers a weight for every row of the features, the class first, then
 * the patches row by row; a looker's weights sum to 1. Means over the heads of the last layer that looks at the image.
 */
export interface AttentionMaps {
  /** (lookers, rows of the features) */
  readonly shape: readonly [number, number];
  readonly weights: Float32Array;
}

/** Generation settings, with the names and defaults of Hugging Face's generate(). */
export interface Generation {
  /** Most new ids, the final eos included. Default 20. */
  readonly maxNewTokens: number;
  /** eos is impossible before this many new ids. Default 0. */
  readonly minNewTokens: number;
  /** 1 = greedy. Default 1. */
  readonly numBeams: number;
  /** Finished beams score sum(logp) / length^lengthPenalty. Default 1. */
  readonly lengthPenalty: number;
  /** Seen ids: score > 0 is divided by it, score < 0 multiplied. Default 1. */
  readonly repetitionPenalty: number;
  /** Which ids were seen. "all": prompt and image ids too, as transformers counts for decoder-only models. Default "all". */
  readonly repetitionPenaltyScope: "all" | "new";
  /** Draw each id instead of taking the likeliest; numBeams must be 1. Default false. */
  readonly doSample: boolean;
  /** doSample: scores are divided by it. Default 1. */
  readonly temperature: number;
  /** doSample: only the k highest scores, and those equal to the last of them; 0: all. Default 50. */
  readonly topK: number;
  /** doSample: of those only the fewest whose probabilities sum to p; 1: all. Default 1. */
  readonly topP: number;
  /** doSample: ids are a function of (seed, image bytes, text ids, step); whole, from 0. Default 0. */
  readonly seed: number;
  /** The text ends with the id that completes one of these; numBeams must be 1. Default none. */
  readonly stopStrings: readonly string[];
}

/** Most beams of beam search. */
export const mostBeams = 32;

export const defaultGeneration: Generation = {
  maxNewTokens: 20,
  minNewTokens: 0,
  numBeams: 1,
  lengthPenalty: 1,
  repetitionPenalty: 1,
  repetitionPenaltyScope: "all",
  doSample: false,
  temperature: 1,
  topK: 50,
  topP: 1,
  seed: 0,
  stopStrings: [],
};

/** How one call is scheduled on the GPU. */
export interface RowOptions {
  /** Interactive rows are served before batch rows at every submit boundary. Default "batch". */
  readonly priority?: "interactive" | "batch";
  /** Aborting gives the row up at the next submit boundary; the promise rejects with the signal's reason. */
  readonly signal?: AbortSignal;
}

/** How a prompt is made of features. */
export interface QueryOptions extends RowOptions {
  /** What tokenizeInstruction gave; needed where the card has `instruction`, and there only. */
  readonly instructionIds?: readonly number[];
}

/** How one text is made, beside its settings. */
export interface TextOptions extends RowOptions {
  /** Hex SHA-256 of the image file's bytes; doSample needs it. */
  readonly image?: string;
  /** Called with the new ids so far, whenever there are more of them; not with beams. */
  readonly onIds?: (ids: readonly number[]) => void;
}

/** How given texts are compared. */
export interface RankOptions extends RowOptions {
  /** Compare whole only so many, those whose first ids are the likeliest. Left out: all. */
  readonly keep?: number;
}

/** What is known of a loaded model without its weights; plain JSON, may cross threads and be logged. */
export interface CheckpointCard {
  /** As the user gave it. */
  readonly ref: string;
  /** e.g. "blip-2-opt", "blip-2-retrieval" */
  readonly family: string;
  /** SHA-256 (hex) over the sorted (file, size, sha256) of the checkpoint. */
  readonly digest: string;
  readonly dtype: Dtype;
  /** Image side in pixels and what preprocessing does; enters the prompt key. */
  readonly image: ImageSettings;
  readonly features: readonly [number, number];
  /** Left out: all as the checkpoint has it. Names the queues, with digest and dtype. */
  readonly settings?: RunSettings;
  /** Where the ViT is run otherwise than the checkpoint says; enters the prompt key. */
  readonly vision?: VisionChanges;
}

/** Kind, type and shape of a model's features as they are handed over. */
export function featuresForm({ dtype, features }: Pick<CheckpointCard, "dtype" | "features">) {
  return { kind: "features", type: activationType(dtype), shape: features } as const;
}

/** What the settings of a run change of a ViT, besides the images' size. */
export interface VisionChanges {
  /** How positions of another grid were made of those that were trained. */
  readonly positions?: "bicubic";
  /** Epsilon of the norms in its blocks, and of the last one. */
  readonly normEps?: readonly [number, number];
}

/** Of a model that writes texts. */
export interface ModelCard extends CheckpointCard {
  /** What generate takes: the prompt of a Q-Former, or, of a model that has none, the features. */
  readonly handsOver: Activation["kind"];
  /** Shape of that. */
  readonly prompt: readonly [number, number];
  /** Positions that the language model has; prompt, text and new ids together. */
  readonly maxPositions: number;
  /** An encoder reads the text, and what is said about it begins anew. Left out: it goes on behind the text. */
  readonly encodesText?: boolean;
  /**
   * Who looks at the features, of the maps of attention(): the queries of a Q-Former, or the ids that a decoder reads. Left
   * out: nobody whose looks could be shown.
   */
  readonly lookers?: "queries" | "ids";
  /** A given answer has the ids of tokenizeAnswer, whatever is in front of it. Left out: tokenize says which it has. */
  readonly answersAlone?: boolean;
  /** RankOptions.keep where a caller says nothing. Left out: all. */
  readonly answersKept?: number;
  /**
   * Where the Q-Former reads an instruction, so that there is a prompt for each, and features serve them all: the most ids
   * of one, specials included. Left out: the prompt depends on the image alone.
   */
  readonly instruction?: { readonly maxIds: number };
}

/** Of a model that compares images with texts. */
export interface ContrastCard extends CheckpointCard {
  /** The vectors of an image: (queries, width). A text has one of this width. */
  readonly vectors: readonly [number, number];
  /** Most ids of a text, specials included. */
  readonly maxPositions: number;
}

/** Of a model that classifies images by labels. */
export interface LabelCard extends ContrastCard {
  /** Cosines times it are logits. */
  readonly logitScale: number;
}

/** Preprocessing as the checkpoint's preprocessor_config.json says. */
export interface ImageSettings {
  /**
   * The shorter side is resized to it, the aspect ratio kept, and height x width are cut from the middle; at least as long
   * as both. Left out: resized to height x width whatever the aspect ratio.
   */
  readonly shortestEdge?: number;
  readonly height: number;
  readonly width: number;
  /** PIL's BICUBIC; others are refused at load. */
  readonly resample: "bicubic";
  readonly rescale: number;
  readonly mean: readonly [number, number, number];
  readonly std: readonly [number, number, number];
}

/**
 * The stages that every model has, wherever its weights are. Rows of concurrent calls share batches; the result of a
 * call never depends on what it was batched with.
 */
export interface ImageStages {
  readonly card: CheckpointCard;
  /** Decode, orient, resize, normalise. @param frame of an animated image; default the first. @throws ImageError */
  toPixels(image: Uint8Array, frame?: number): Promise<Pixels>;
  /** ViT. */
  encode(pixels: Pixels, options?: RowOptions): Promise<Activation>;
  close(): Promise<void>;
}

/** The stages of one loaded model that writes texts. */
export interface Stages extends ImageStages {
  readonly card: ModelCard;
  /** Q-Former and language projection; only of a model that hands over a prompt. */
  query(features: Activation, options?: QueryOptions): Promise<Activation>;
  /**
   * encode and query in one go without leaving the GPU; the same bytes as the two calls. Only where query is, and the card
   * has no `instruction`.
   */
  encodeAndQuery(pixels: Pixels, options?: RowOptions): Promise<Activation>;
  /** Text ids for the language model or its encoder, specials included, image slots excluded. @throws TokenizerError */
  tokenize(text: string | null): Promise<number[]>;
  /** Ids for the Q-Former, specials included; only where the card has `instruction`. @throws TokenizerError */
  tokenizeInstruction(text: string): Promise<number[]>;
  /**
   * Ids of an answer as the model would write it, without the one that ends it; only where the card has `answersAlone`.
   * @throws TokenizerError
   */
  tokenizeAnswer(text: string): Promise<number[]>;
  /** New ids only, the final eos included when produced. */
  generate(
    prompt: Activation,
    textIds: readonly number[],
    generation: Generation,
    options?: TextOptions,
  ): Promise<number[]>;
  /**
   * For each of some texts that may follow, by its ids: the sum of their log-probabilities and that of the id that ends
   * the text; null for those not kept. What an encoder makes of prompt and text is made once.
   */
  rank(
    prompt: Activation,
    textIds: readonly number[],
    answers: readonly (readonly number[])[],
    options?: RankOptions,
  ): Promise<(number | null)[]>;
  /**
   * Where the queries looked, or a decoder at each of these ids, read once more for it; only where ModelCard.lookers is.
   * @param ids the decoder's whole sequence, or what tokenizeInstruction gave; queries that read no text take none
   */
  attention(features: Activation, ids: readonly number[], options?: RowOptions): Promise<AttentionMaps>;
  /** The tokenizer's decode of exactly these ids, specials skipped, trimmed. */
  detokenize(ids: readonly number[]): Promise<string>;
}

/** The stages of one loaded model that compares images with texts; `query` makes the vectors of either. */
export interface ContrastStages extends ImageStages {
  readonly card: ContrastCard;
  /** Ids of a text, specials included; nothing is cut off. @throws TokenizerError */
  tokenize(text: string): Promise<number[]>;
  /** The image alone -> (queries, width). */
  queryImage(features: Activation, options?: RowOptions): Promise<Vectors>;
  /** The text alone -> (1, width). @throws TextError */
  queryText(textIds: readonly number[], options?: RowOptions): Promise<Vectors>;
}

/** The stages of one that classifies: CLIP. */
export interface LabelStages extends ContrastStages {
  readonly card: LabelCard;
}

/** The stages of one that has a matching head as well. */
export interface RetrievalStages extends ContrastStages {
  /** Image and text together, then the matching head. @throws TextError */
  queryBoth(features: Activation, textIds: readonly number[], options?: RowOptions): Promise<MatchLogits>;
}
