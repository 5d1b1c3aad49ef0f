/** A tokenizer that cannot be opened, or a text that it cannot take. Its message is one sentence. */
export class TokenizerError extends Error {
  override readonly name = "TokenizerError";
}
