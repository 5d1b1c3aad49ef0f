// A SentencePiece model file, read: its pieces and the few settings that decide how a text is cut.
// Upstream: google/sentencepiece, src/sentencepiece_model.proto.

import protobuf from "protobufjs/light.js";
import { z } from "zod";
import { TokenizerError } from "./tokenizer-error.ts";

/** What a piece is there for; numbers are the file's. */
export const pieceKinds = { normal: 1, unknown: 2, control: 3, "user defined": 4, unused: 5, byte: 6 } as const;
export type PieceKind = keyof typeof pieceKinds;

export interface Piece {
  readonly text: string;
  /** Of normal ones: a log-probability (Unigram), or the order of merges (BPE), the highest first. */
  readonly score: number;
  readonly kind: PieceKind;
}

export interface SentencePieceModel {
  /** By id. */
  readonly pieces: readonly Piece[];
  readonly kind: "unigram" | "bpe";
  /** What has no piece is spelled in bytes, of which there is a piece each. */
  readonly byteFallback: boolean;
  /** How the piece for unknown text is shown. */
  readonly unknownText: string;
  readonly normalizer: {
    /** See precompiled.ts; null: nothing is replaced. */
    readonly charsmap: Buffer | null;
    /** A space goes in front of every text. */
    readonly addsPrefix: boolean;
    /** Spaces at the ends are dropped, and all but one of several. */
    readonly removesSpaces: boolean;
  };
}

/** The fields that are read, with their numbers and defaults. */
const fields = {
  nested: {
    Piece: {
      fields: {
        piece: { type: "string", id: 1 },
        score: { type: "float", id: 2 },
        type: { type: "int32", id: 3, options: { default: pieceKinds.normal } },
      },
    },
    Trainer: {
      fields: {
        modelType: { type: "int32", id: 3, options: { default: 1 } },
        treatWhitespaceAsSuffix: { type: "bool", id: 24 },
        byteFallback: { type: "bool", id: 35 },
        unkSurface: { type: "string", id: 44, options: { default: " \u2047 " } },
      },
    },
    Normalizer: {
      fields: {
        precompiledCharsmap: { type: "bytes", id: 2 },
        addDummyPrefix: { type: "bool", id: 3, options: { default: true } },
        removeExtraWhitespaces: { type: "bool", id: 4, options: { default: true } },
        escapeWhitespaces: { type: "bool", id: 5, options: { default: true } },
      },
    },
    Model: {
      fields: {
        pieces: { rule: "repeated", type: "Piece", id: 1 },
        trainer: { type: "Trainer", id: 2 },
        normalizer: { type: "Normalizer", id: 3 },
        denormalizer: { type: "Normalizer", id: 5 },
      },
    },
  },
};

const normalizer = z.object({
  precompiledCharsmap: z.instanceof(Uint8Array),
  addDummyPrefix: z.boolean(),
  removeExtraWhitespaces: z.boolean(),
  escapeWhitespaces: z.boolean(),
});
const schema = z.object({
  pieces: z.array(z.object({ piece: z.string(), score: z.number(), type: z.number() })).min(1),
  trainer: z.object({
    modelType: z.number(),
    treatWhitespaceAsSuffix: z.boolean(),
    byteFallback: z.boolean(),
    unkSurface: z.string(),
  }),
  normalizer,
  denormalizer: normalizer.nullable(),
});

/**
 * @param where names the file in errors
 * @throws TokenizerError when the bytes are no such file, or of a kind that is not built: words or characters as pieces, spaces
 * behind words, unused pieces, a denormaliser
 */
export function readSentencePieceModel(bytes: Uint8Array, where: string): SentencePieceModel {
  const { pieces, trainer, normalizer, denormalizer } = decoded(bytes, where);
  const expect = (holds: boolean, what: string, expected: string, got: unknown) => {
    if (!holds) throw new TokenizerError(`${where}: ${what}: expected ${expected}, got ${got}`);
  };
  const kind = ({ 1: "unigram", 2: "bpe" } as const)[trainer.modelType];
  expect(kind !== undefined, "trainer_spec.model_type", "1 (Unigram) or 2 (BPE)", trainer.modelType);
  expect(!trainer.treatWhitespaceAsSuffix, "trainer_spec.treat_whitespace_as_suffix", "false", true);
  expect(normalizer.escapeWhitespaces, "normalizer_spec.escape_whitespaces", "true", false);
  const back = denormalizer?.precompiledCharsmap.length ?? 0;
  expect(back === 0, "denormalizer_spec", "none", `one of ${back} bytes`);
  const kinds = new Map<number, PieceKind>(
    Object.entries(pieceKinds).map(([name, number]) => [number, name as PieceKind]),
  );
  const known = pieces.map(({ piece: text, score, type }) => ({ text, score, kind: kinds.get(type) ?? "unused" }));
  const unused = known.find((piece) => piece.kind === "unused");
  expect(unused === undefined, "pieces", "none that is unused", JSON.stringify(unused?.text));
  const unknown = known.filter((piece) => piece.kind === "unknown").length;
  expect(unknown === 1, "pieces", "one for what is unknown", unknown);
  const { precompiledCharsmap: charsmap } = normalizer;
  return {
    pieces: known,
    kind: kind ?? "unigram",
    byteFallback: trainer.byteFallback,
    unknownText: trainer.unkSurface,
    normalizer: {
      charsmap: charsmap.length === 0 ? null : Buffer.from(charsmap),
      addsPrefix: normalizer.addDummyPrefix,
      removesSpaces: normalizer.removeExtraWhitespaces,
    },
  };
}

/** @throws TokenizerError */
function decoded(bytes: Uint8Array, where: string): z.infer<typeof schema> {
  try {
    const message = protobuf.Root.fromJSON(fields).lookupType("Model");
    const read = message.toObject(message.decode(bytes), { defaults: true, arrays: true });
    return schema.parse(read);
  } catch (cause) {
    const reason = cause instanceof z.ZodError ? cause.issues[0]?.message : (cause as Error).message;
    throw new TokenizerError(
      `${where}: expected a SentencePiece model, got ${bytes.length} bytes that are none (${reason})`,
      {
        cause,
      },
    );
  }
}
