// How many workgroups a launch asks for.

/** The most that one dimension holds. */
const most = 65535;

/**
 * `count` workgroups over two dimensions; shaders read their place as `id.x + id.y * 65535` (or y and z) and leave out
 * what is past the end.
 */
export function overTwo(count: number): [number, number] {
  return [Math.min(count, most), Math.ceil(count / most)];
}

/** Invocations of a workgroup of kernels that compute one element per invocation. */
export const elementwise = 64;
