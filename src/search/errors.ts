// What can be wrong with an index of images.

/** A file that is no index, is damaged, or belongs to another model. The message says which, and what to do. */
export class ImageIndexError extends Error {
  override name = "ImageIndexError";
}
