// Results of a search as one page with the pictures in it, for a browser. No scripts, nothing from elsewhere.

import { access, constants, stat, writeFile } from "node:fs/promises";
import { dirname } from "node:path";
import { pathToFileURL } from "node:url";
import { thumbnail } from "../image/thumbnail.ts";
import { describeError, UsageError } from "./errors.ts";
import { bytesOf } from "./indexed-images.ts";
import type { SearchResult } from "./local-search.ts";

export interface SheetFacts {
  readonly index: string;
  readonly model: string;
  /** How the images were compared. */
  readonly way: string;
}

/** @throws UsageError when no file can be written there */
export async function expectFolderOf(file: string): Promise<void> {
  try {
    await access(dirname(file), constants.W_OK);
    if ((await stat(file).catch(() => null))?.isDirectory()) throw Object.assign(new Error(), { code: "a folder" });
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    const got = code === "ENOENT" ? "no such folder" : code;
    throw new UsageError(`--html: expected a file in a folder that can be written, got ${got}: ${file}`);
  }
}

/** Write the page. @param groups the results of each text or image that was searched for */
export async function writeContactSheet(
  file: string,
  groups: readonly (readonly SearchResult[])[],
  facts: SheetFacts,
): Promise<void> {
  const sections: string[] = [];
  for (const group of groups) sections.push(await section(group));
  await writeFile(file, page(sections, facts));
}

function page(sections: readonly string[], { index, model, way }: SheetFacts): string {
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>Search results</title>
<style>
body { font: 15px/1.4 system-ui, sans-serif; margin: 2em; color: #222; background: #fff }
h2 { margin: 1.5em 0 .5em; overflow-wrap: anywhere }
ol { display: flex; flex-wrap: wrap; gap: 1em; list-style: none; padding: 0 }
li { width: 256px; font-size: 13px; overflow-wrap: anywhere }
img, .missing { display: block; max-width: 256px; margin-bottom: .3em }
.missing { padding: 1em; border: 1px solid #c33; color: #c33 }
</style>
<h1>Search results</h1>
<p>Index: ${escaped(index)}<br>Model: ${escaped(model)}<br>${escaped(way)}</p>
${sections.join("\n")}
</html>
`;
}

async function section(results: readonly SearchResult[]): Promise<string> {
  const [first] = results;
  if (first === undefined) return "";
  const items: string[] = [];
  for (const result of results) items.push(await item(result));
  const heading = "text" in first ? escaped(first.text) : `Images like ${escaped(first.like)}`;
  return `<h2>${heading}</h2>\n<ol>\n${items.join("\n")}\n</ol>`;
}

async function item(result: SearchResult): Promise<string> {
  const { rank, image, indexed } = result;
  const caption = `${rank}. ${scores(result)}<br><a href="${escaped(pathToFileURL(image).href)}">${escaped(image)}</a>`;
  try {
    const picture = Buffer.from(await thumbnail(await bytesOf(indexed))).toString("base64");
    return `<li><img src="data:image/jpeg;base64,${picture}" alt="">${caption}</li>`;
  } catch (error) {
    return `<li><span class="missing">${escaped(describeError(error).message)}</span>${caption}</li>`;
  }
}

function scores(result: SearchResult): string {
  if ("like" in result) return `similarity ${result.similarity.toFixed(4)}`;
  return `itc ${result.itc.toFixed(4)}${result.itm === null ? "" : `, itm ${result.itm.toFixed(4)}`}`;
}

const entities: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;",
};

/** A text as HTML. Control characters, which HTML cannot hold, become spaces or signs for them. */
function escaped(text: string): string {
  return text
    .replace(/\p{Cc}/gu, (control) => (/\s/.test(control) ? " " : "\ufffd"))
    .replace(/[&<>"']/g, (character) => entities[character] ?? character);
}
