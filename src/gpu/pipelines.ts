// Compiled kernels, one per (shader, constants), for the life of the device.

import { KernelError } from "./errors.ts";
import { readShader } from "./package-root.ts";
import { parseShader, type ShaderInterface, specialise } from "./shader.ts";

export interface Kernel {
  readonly declared: ShaderInterface;
  readonly pipeline: GPUComputePipeline;
  readonly layout: GPUBindGroupLayout;
}

export class Pipelines {
  readonly #device: GPUDevice;
  readonly #declared = new Map<string, ShaderInterface>();
  readonly #layouts = new Map<string, { bindings: GPUBindGroupLayout; pipeline: GPUPipelineLayout }>();
  readonly #kernels = new Map<string, Promise<Kernel>>();

  constructor(device: GPUDevice) {
    this.#device = device;
  }

  /** What `shaders/<shader>.wgsl` declares. @throws KernelError */
  declared(shader: string): ShaderInterface {
    const known = this.#declared.get(shader);
    if (known) return known;
    const declared = parseShader(shader, readShader(shader));
    this.#declared.set(shader, declared);
    return declared;
  }

  /** Compile, or take what was compiled before. @throws KernelError `shaders/x.wgsl:line:column message` */
  kernel(shader: string, constants: Readonly<Record<string, number | string>>): Promise<Kernel> {
    const key = JSON.stringify([shader, Object.entries(constants).sort(([a], [b]) => (a < b ? -1 : 1))]);
    let kernel = this.#kernels.get(key);
    if (kernel === undefined) {
      kernel = this.#compile(this.declared(shader), constants);
      this.#kernels.set(key, kernel);
    }
    return kernel;
  }

  async #compile(declared: ShaderInterface, constants: Readonly<Record<string, number | string>>): Promise<Kernel> {
    const where = `shaders/${declared.shader}.wgsl`;
    const { code, overrides } = specialise(declared, constants);
    this.#device.pushErrorScope("validation");
    const module = this.#device.createShaderModule({ code, label: where });
    const scope = this.#device.popErrorScope();
    const { messages } = await module.getCompilationInfo();
    const errors = messages.filter((message) => message.type === "error");
    const refused = await scope;
    if (errors.length > 0) {
      const lines = errors.map((error) => `${where}:${error.lineNum}:${error.linePos} ${error.message}`);
      throw new KernelError(lines.join("\n"));
    }
    if (refused) throw new KernelError(`${where}: ${refused.message}`);

    this.#device.pushErrorScope("validation");
    const { bindings, pipeline: layout } = this.#layout(declared);
    const layoutScope = this.#device.popErrorScope();
    const refusedLayout = await layoutScope;
    if (refusedLayout) throw new KernelError(`${where}: ${refusedLayout.message}`);
    try {
      const pipeline = await this.#device.createComputePipelineAsync({
        label: declared.shader,
        layout,
        compute: { module, entryPoint: declared.entryPoint, constants: overrides },
      });
      return { declared, pipeline, layout: bindings };
    } catch (cause) {
      const settings = JSON.stringify(constants);
      throw new KernelError(`${where} with ${settings}: ${cause instanceof Error ? cause.message : String(cause)}`, {
        cause,
      });
    }
  }

  /** Built from the declared bindings: `auto` would drop a binding that the shader does not use. */
  #layout(declared: ShaderInterface): { bindings: GPUBindGroupLayout; pipeline: GPUPipelineLayout } {
    const types = { input: "read-only-storage", output: "storage", params: "uniform" } as const;
    const entries = declared.bindings.map(({ binding, kind }) => ({
      binding,
      visibility: GPUShaderStage.COMPUTE,
      buffer: { type: types[kind] },
    }));
    const key = JSON.stringify(entries);
    const known = this.#layouts.get(key);
    if (known) return known;
    const bindings = this.#device.createBindGroupLayout({ entries });
    const made = { bindings, pipeline: this.#device.createPipelineLayout({ bindGroupLayouts: [bindings] }) };
    this.#layouts.set(key, made);
    return made;
  }
}
