// The peer as this process sees it: models that load, run and close in a process of their own.

import { type ChildProcess, fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import type { PeerForm } from "./graphs.ts";
import type { Side } from "./ours.ts";
import type { PeerAnswer, PeerRequest, Provider } from "./peer-process.ts";

/** The peer refused or failed at one thing; it may be asked other things. */
export class PeerError extends Error {
  override readonly name = "PeerError";
}

export class Peer {
  readonly #child: ChildProcess;
  readonly #waiting: { resolve(answer: PeerAnswer): void; reject(error: Error): void }[] = [];
  #ended: Error | null = null;

  /** @param folder where onnxruntime-node is installed */
  constructor(folder: string) {
    const script = fileURLToPath(new URL("./peer-process.js", import.meta.url));
    this.#child = fork(script, [folder], { serialization: "advanced", stdio: ["ignore", "ignore", "ignore", "ipc"] });
    this.#child.on("message", (answer: PeerAnswer) => this.#waiting.shift()?.resolve(answer));
    this.#child.on("error", (error) => this.#end(error.message));
    this.#child.on("exit", (status, signal) => this.#end(`ended with ${signal ?? status}`));
  }

  /** @throws PeerError */
  async open({ graph }: PeerForm, provider: Provider): Promise<Side> {
    const answer = await this.#ask({ load: graph, provider });
    if (!("loaded" in answer)) throw new PeerError(`onnxruntime-node: expected a model, got ${JSON.stringify(answer)}`);
    const { loaded, first, sample } = answer;
    return {
      first,
      sample,
      run: async () => {
        const ran = await this.#ask({ run: loaded });
        return "took" in ran ? ran.took : Number.NaN;
      },
      close: async () => {
        await this.#ask({ close: loaded });
      },
    };
  }

  close(): void {
    this.#child.removeAllListeners("exit");
    if (this.#child.connected) this.#child.disconnect();
  }

  async #ask(request: PeerRequest): Promise<PeerAnswer> {
    if (this.#ended) throw this.#ended;
    const answer = await new Promise<PeerAnswer>((resolve, reject) => {
      this.#waiting.push({ resolve, reject });
      this.#child.send(request);
    });
    if ("failed" in answer) throw new PeerError(`onnxruntime-node: ${answer.failed}`);
    return answer;
  }

  #end(why: string): void {
    this.#ended = new PeerError(`onnxruntime-node: expected its process to go on, got ${why}`);
    for (const { reject } of this.#waiting.splice(0)) reject(this.#ended);
  }
}
