// What can go wrong with a model before anything runs on the GPU, one class per mistake.

/** A checkpoint of a kind that is not built; the message says what is. */
export class UnsupportedModelError extends Error {
  override name = "UnsupportedModelError";
}

/** BLIPFLEET_MEMORY is no amount of memory. */
export class MemorySettingError extends Error {
  override name = "MemorySettingError";
}

/** Generation settings or ids that the model cannot serve: the caller's mistake. */
export class GenerationError extends Error {
  override name = "GenerationError";
}

/** A text that the model cannot read: too many ids, none, or one that it does not know. The caller's mistake. */
export class TextError extends Error {
  override name = "TextError";
}
