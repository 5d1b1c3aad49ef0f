// What can go wrong on the GPU, one class per mistake.

/** A tensor of the wrong shape or element type reached an operation. */
export class ShapeError extends Error {
  override name = "ShapeError";
}

/** A shader could not be read, compiled or bound as its wrapper asked. */
export class KernelError extends Error {
  override name = "KernelError";
}

/** No usable adapter: none found, the null backend, or limits too small. */
export class AdapterError extends Error {
  override name = "AdapterError";
}

/** The device ran out of memory. The process must end: later work on it would be wrong. */
export class OutOfMemoryError extends Error {
  override name = "OutOfMemoryError";
}

/** The device is gone. The process must end; a supervisor starts another. */
export class DeviceLostError extends Error {
  override name = "DeviceLostError";
}
