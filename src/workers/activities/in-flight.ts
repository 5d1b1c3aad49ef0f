// Work by key that is under way: whoever wants the same waits for it instead of doing it again.

export class InFlight {
  readonly #running = new Map<string, Promise<void>>();

  /**
   * Do the work unless the same key is being worked on; then wait for that.
   * @returns true when it was done for this call. When the work that was waited for fails, this call does it itself.
   */
  async once(key: string, work: () => Promise<void>): Promise<boolean> {
    for (;;) {
      const running = this.#running.get(key);
      if (running === undefined) break;
      const succeeded = await running.then(
        () => true,
        () => false, // its own caller hears of it; it may have been cancelled
      );
      if (succeeded) return false;
    }
    const mine = work();
    this.#running.set(key, mine);
    try {
      await mine;
      return true;
    } finally {
      this.#running.delete(key);
    }
  }
}
