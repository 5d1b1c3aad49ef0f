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

/** Seconds; the slowest that compiles and runs takes a few. */
const patience = 120;

export class Peer {
  readonly #folder: string;
  #process: PeerProcess | null = null;

  /** @param folder where onnxruntime-node is installed */
  constructor(folder: string) {
    this.#folder = folder;
  }

  /**
   * A model that is loaded and has run once. Where the process ended or gave no answer there is a new one at the next call,
   * and what the old one had loaded is gone.
   * @throws PeerError
   */
  async open({ graph }: PeerForm, provider: Provider): Promise<PeerSide> {
    if (this.#process?.ended) this.#process = null;
    this.#process ??= new PeerProcess(this.#folder);
    const own = this.#process;
    const answer = await own.ask({ load: graph, provider });
    if (!("loaded" in answer)) throw new PeerError(`onnxruntime-node: expected a model, got ${JSON.stringify(answer)}`);
    const { loaded, first, sample } = answer;
    return {
      first,
      sample,
      get gone() {
        return own.ended;
      },
      run: async () => {
        const ran = await own.ask({ run: loaded });
        return "took" in ran ? ran.took : Number.NaN;
      },
      close: async () => {
        if (!own.ended) await own.ask({ close: loaded });
      },
    };
  }

  close(): void {
    this.#process?.close();
  }
}

export interface PeerSide extends Side {
  /** Its process has ended. */
  readonly gone: boolean;
}

class PeerProcess {
  readonly #child: ChildProcess;
  #waiting: ((answer: PeerAnswer) => void) | null = null;
  #why: string | null = null;

  constructor(folder: string) {
    const script = fileURLToPath(new URL("./peer-process.js", import.meta.url));
    this.#child = fork(script, [folder], { serialization: "advanced", stdio: ["ignore", "ignore", "ignore", "ipc"] });
    this.#child.on("message", (answer: PeerAnswer) => this.#waiting?.(answer));
    this.#child.on("error", (error) => this.#end(error.message));
    this.#child.on("exit", (status, signal) => this.#end(`its process ended with ${signal ?? status}`));
  }

  get ended(): boolean {
    return this.#why !== null;
  }

  /** One question at a time. @throws PeerError */
  async ask(request: PeerRequest): Promise<PeerAnswer> {
    const timer = setTimeout(() => this.#end(`none within ${patience} s`), patience * 1000);
    const answer = await new Promise<PeerAnswer>((resolve) => {
      this.#waiting = resolve;
      if (this.#why === null) this.#child.send(request);
      else resolve({ failed: this.#why });
    });
    clearTimeout(timer);
    if ("failed" in answer) throw new PeerError(`onnxruntime-node: expected an answer, got: ${answer.failed}`);
    return answer;
  }

  close(): void {
    this.#end("closed");
  }

  #end(why: string): void {
    if (this.#why !== null) return;
    this.#why = why;
    // Its library may crash while it takes itself down.
    this.#child.kill("SIGKILL");
    this.#waiting?.({ failed: why });
  }
}
