// The one interface between model code and the GPU: kernels launch onto a recorder, never onto a device.

import type { ElementType, Tensor } from "./tensor.ts";
import type { Choice, Variants } from "./variants.ts";

/** One launch of `shaders/<shader>.wgsl`. Everything in it is frozen when the recording is finished. */
export interface Launch {
  /** Bound to the `var<storage, read>` variables of the same names. */
  readonly inputs: Readonly<Record<string, Tensor>>;
  /** Bound to the `var<storage, read_write>` variables of the same names (state that a kernel updates in place too). */
  readonly outputs: Readonly<Record<string, Tensor>>;
  /** The fields of the shader's `struct Params`, all of them and no others. Types come from the struct (u32, i32, f32). */
  readonly params?: Readonly<Record<string, number>>;
  /**
   * Values for the shader's opening `const NAME = …;` and `alias NAME = …;` lines and for its `override`s.
   * A name that the shader does not declare is a KernelError.
   */
  readonly constants?: Readonly<Record<string, number | string>>;
  /** Workgroup counts; each at most 65535. */
  readonly workgroups: readonly [number, number?, number?];
  /** The variant, where the kernel comes in several: it is refused if this launch does not compile. */
  readonly choice?: Choice;
}

export interface Recorder {
  /** True when the adapter is a software (CPU) Vulkan driver: another kernel variant may be the fast one. */
  readonly softwareAdapter: boolean;
  /** Where a kernel that comes in variants chooses its own; what was chosen goes into the launch. */
  readonly variants: Variants;
  /**
   * A tensor that lives inside this recording. Its buffer is chosen when the recording is finished, and is
   * shared with other scratch whose life does not overlap. Contents are undefined until a kernel writes them.
   */
  scratch(name: string, shape: readonly number[], type?: ElementType): Tensor;
  /**
   * Append one kernel launch.
   * @throws KernelError if names of inputs, outputs, params or constants differ from what the shader declares.
   */
  launch(shader: string, launch: Launch): void;
}
