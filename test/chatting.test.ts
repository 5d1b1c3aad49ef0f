// A conversation on stages without a GPU: what the model reads at every turn, and what is left out when it no longer fits.

import assert from "node:assert/strict";
import { test } from "node:test";
import { openChat } from "../src/chatting.ts";
import { defaultGeneration, type ModelCard } from "../src/stages.ts";
import { glmPrompt, glmReply, languageOf, questionText } from "../src/text/prompts.ts";
import { type FakeStages, fakeCard, fakeStages, instructedCard } from "./workers/fake-stages.ts";

const image = new TextEncoder().encode("an image");

/** Stages that write down what is read; ids are the text's bytes. */
function listening(card: ModelCard): FakeStages & { readonly read: string[] } {
  const read: string[] = [];
  const stages = fakeStages(0, async () => {}, card);
  return {
    ...stages,
    read,
    generate(prompt, textIds, generation, options) {
      read.push(Buffer.from(textIds).toString("utf8"));
      return stages.generate(prompt, textIds, generation, options);
    },
  };
}

const roomy = { ...fakeCard, maxPositions: 10_000 };
const generation = { ...defaultGeneration, maxNewTokens: 6 };

test("one encode, whatever is asked; a question is read behind all turns before it", async () => {
  const stages = listening(roomy);
  const chat = await openChat(stages, image, { generation });
  const first = await chat.ask("What is it?");
  const second = await chat.ask("Why?");
  assert.deepEqual(stages.read, [
    "Question: What is it? Answer:",
    `Question: What is it? Answer: ${first.text}. Question: Why? Answer:`,
  ]);
  assert.deepEqual([first.turn, second.turn, second.leftOut], [1, 2, null]);
  assert.notEqual(first.text, "");
  assert.equal(stages.rows.filter(({ stage }) => stage === "encodeAndQuery").length, 1);
  chat.clear();
  const again = await chat.ask("What is it?");
  assert.deepEqual([again.turn, again.text], [1, first.text]);
});

test("turns that no longer fit are left out, the oldest first, with both numbers; the next question knows no more of them", async () => {
  // 2 image slots and 6 new ids; a turn is 36 bytes, a question 21.
  const card = { ...fakeCard, maxPositions: 8 + 100 };
  const stages = listening(card);
  const chat = await openChat(stages, image, { generation });
  const answers: string[] = [];
  for (const question of ["one", "two", "six"]) answers.push((await chat.ask(question)).text);
  const turn = (question: string, answer = "") => `Question: ${question} Answer: ${answer}. `;
  assert.equal(turn("one", answers[0]).length, 36);
  const fourth = await chat.ask("ten");
  assert.equal(stages.read[3], `${turn("two", answers[1])}${turn("six", answers[2])}Question: ten Answer:`);
  assert.deepEqual(fourth.leftOut, { turns: 1, needed: 8 + 3 * 36 + 21, available: 108 });
  assert.equal(fourth.turn, 4);
  const fifth = await chat.ask("two");
  assert.equal(fifth.turn, 5);
  assert.deepEqual(fifth.leftOut, { turns: 1, needed: 8 + 3 * 36 + 21, available: 108 });
});

test("a question that does not fit even by itself is asked without turns, and refused by the model", async () => {
  const stages = listening({ ...fakeCard, maxPositions: 40 });
  const chat = await openChat(stages, image, { generation });
  const { leftOut } = await chat.ask("a question of very many words, more than fit");
  assert.equal(leftOut, null);
});

test("InstructBLIP: one encode of the features; turns that its Q-Former cannot read are left out as well", async () => {
  const stages = listening({ ...instructedCard, maxPositions: 10_000 });
  const chat = await openChat(stages, image, { generation });
  const { text } = await chat.ask("Describe it.");
  const second = await chat.ask("In short.");
  const turn = `Question: Describe it. Answer: ${text}. `;
  assert.deepEqual(stages.read, ["Describe it.", `${turn}In short.`]);
  assert.equal(second.leftOut, null);
  const third = await chat.ask("In one word.");
  assert.deepEqual(third.leftOut, { turns: 1, needed: 2 + turn.length + turn.length - 3 + 12, available: 64 });
  assert.deepEqual(
    stages.rows.map(({ stage }) => stage),
    ["encode", "query", "generate", "query", "generate", "query", "generate"],
  );
});

test("a question that fails leaves the conversation as it was", async () => {
  const stages = listening(roomy);
  const chat = await openChat(stages, image, { generation });
  await chat.ask("first");
  const { generate } = stages;
  stages.generate = () => Promise.reject(new Error("broken"));
  await assert.rejects(chat.ask("second"), /broken/);
  stages.generate = generate;
  await chat.ask("third");
  assert.ok(stages.read[1]?.startsWith("Question: first Answer: ") && !stages.read[1].includes("second"));
});

test("VisualGLM: its frame in the question's language, or as told; replies tidied up, and read so afterwards", async () => {
  const stages = listening({ ...roomy, family: "visualglm" });
  stages.detokenize = async () => "答：两只猫,在沙发上? ";
  const chat = await openChat(stages, image, { generation });
  const { text } = await chat.ask("有什么?");
  assert.equal(text, "两只猫，在沙发上？");
  await chat.ask("what colour?");
  const english = await openChat(stages, image, { generation, language: "en" });
  await english.ask("有什么?");
  assert.deepEqual(stages.read, [
    "问：有什么?\n答：",
    "Q:有什么?\nA:两只猫，在沙发上？\nQ:what colour?\nA:",
    "Q:有什么?\nA:",
  ]);
});

test("prompts by family", () => {
  const turns = [{ question: "what?", answer: "a dog" }];
  const said = "Question: what? Answer: a dog. ";
  assert.equal(questionText({ family: "blip-2-opt" }, "why?", turns), `${said}Question: why? Answer:`);
  assert.equal(questionText({ family: "blip-2-t5" }, "why?"), "Question: why? Answer:");
  assert.equal(questionText({ family: "instructblip-vicuna" }, "Describe it.", turns), `${said}Describe it.`);
  assert.equal(questionText({ family: "instructblip-t5" }, "Describe it."), "Describe it.");
  assert.equal(questionText({ family: "blip-vqa" }, "why?", turns), "why?");
  assert.equal(questionText({ family: "blip-vqa", settings: { behaviour: "lavis" } }, "Why, so?!", turns), "why, so?");
  assert.equal(questionText({ family: "visualglm" }, "why?", turns), "Q:what?\nA:a dog\nQ:why?\nA:");
  assert.equal(glmPrompt("颜色？", turns), "问：what?\n答：a dog\n问：颜色？\n答：");
  assert.deepEqual(["what?", "猫?", "𠀀", "ネコ", ""].map(languageOf), ["en", "zh", "zh", "en", "en"]);
});

test("VisualGLM's replies: each rule by itself", () => {
  const cases: [string, string][] = [
    ["  plain, text: as it is! ", "plain, text: as it is!"],
    ["猫,狗!鸟:鱼;牛?", "猫，狗！鸟：鱼；牛？"],
    ["a,猫 b;c", "a，猫 b;c"],
    ["截止[[训练时间]]。", "截止2023年。"],
    ["问：什么\n答：两只猫", "两只猫"],
    ["Q:what A:a dog A:two dogs", "two dogs"],
    ["A:one 答：二", "二"],
    ["", ""],
  ];
  for (const [given, reply] of cases) assert.equal(glmReply(given), reply);
});
