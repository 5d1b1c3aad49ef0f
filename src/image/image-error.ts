/** An image that cannot become pixels: empty, truncated, not an image, or too large. Its message is one sentence. */
export class ImageError extends Error {
  override readonly name = "ImageError";
}
