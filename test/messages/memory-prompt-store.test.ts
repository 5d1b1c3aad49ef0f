import { memoryPromptStore } from "../../src/messages/memory-prompt-store.ts";
import { describePromptStore } from "./prompt-store-conformance.ts";

describePromptStore("memory", async () => ({
  async open(limits) {
    const store = memoryPromptStore(limits);
    return {
      store,
      peek: async (subject) => store.messages.get(subject),
      plant: async (subject, message) => {
        store.messages.set(subject, message);
      },
    };
  },
  close: async () => undefined,
}));
