/** An image that cannot become pixels: empty, truncated, not an image, or too large. Its message is one sentence. */
export class ImageError extends Error {
  override readonly name = "ImageError";
}

/** Most bytes of one image file; the largest photographs are under 100 MB. */
export const maxImageBytes = 256 * 2 ** 20;

/** What an image that is not there may mean, where a list named it. */
export const whereListsStart = "relative paths of a list start at the list's folder, or where --images FOLDER says";
