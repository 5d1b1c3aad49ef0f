// blipfleet doctor: what is installed, what works, and what to do about what does not.

import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Command } from "commander";
import type { AdapterReport } from "../gpu/adapter.ts";
import { packageRoot } from "../gpu/package-root.ts";
import { refusalLine, type VariantReport, variantName } from "../gpu/variants.ts";
import { describeError } from "./errors.ts";
import {
  addFormatOption,
  addModelOptions,
  addSettingsOptions,
  type FormatFlag,
  type ModelFlags,
  settingsFrom,
} from "./model-options.ts";
import { writeJson, writeLine } from "./output.ts";

type Flags = ModelFlags & FormatFlag;

/** One thing looked at. */
interface Finding {
  readonly check: string;
  readonly ok: boolean;
  /** A command needs it; without it doctor ends with status 1. */
  readonly needed: boolean;
  readonly detail: string;
  /** The same for programs. */
  readonly data?: unknown;
}

export function addDoctorCommand(program: Command): void {
  const command = program
    .command("doctor")
    .description("Show adapter, driver, servers and folders, test every kernel, and say what is missing.");
  addModelOptions(command, "no model is loaded");
  addSettingsOptions(command);
  addFormatOption(command);
  command.addHelpText(
    "after",
    "\nWith --model the model is loaded and its memory shown.\n\nExamples:\n  blipfleet doctor\n  blipfleet doctor --model Salesforce/blip2-opt-2.7b --format jsonl\n",
  );
  command.action(async (flags: Flags) => {
    let problems = 0;
    for await (const finding of examine(flags)) {
      if (!finding.ok && finding.needed) problems += 1;
      if (flags.format === "jsonl") writeJson(finding);
      else
        writeLine(
          `${finding.ok ? "ok  " : finding.needed ? "FAIL" : "note"} ${finding.check.padEnd(17)} ${finding.detail}`,
        );
    }
    process.exitCode = problems > 0 ? 1 : 0;
  });
}

async function* examine(flags: Flags): AsyncGenerator<Finding> {
  const { version } = JSON.parse(readFileSync(join(packageRoot, "package.json"), "utf8"));
  yield present("blipfleet", `${version} at ${packageRoot}, Node ${process.versions.node}`);
  yield await folders();
  const { hubCacheFolder, isOffline } = await import("../weights/repository.ts");
  const offline = isOffline() ? ", offline (HF_HUB_OFFLINE)" : "";
  yield present(
    "model cache",
    `${hubCacheFolder()}${existsSync(hubCacheFolder()) ? "" : " (not there yet)"}${offline}`,
  );
  yield driverChoice();
  yield* adapter(flags);
  yield await server("nats-server", [2, 9]);
  yield await server("temporal", [0, 0]);
  yield* answering();
}

function present(check: string, detail: string, data?: unknown): Finding {
  return { check, ok: true, needed: true, detail, ...(data === undefined ? {} : { data }) };
}

function missing(check: string, error: unknown): Finding {
  const { type, message } = describeError(error);
  return { check, ok: false, needed: true, detail: `${type}: ${message}` };
}

async function folders(): Promise<Finding> {
  const { cacheFolder } = await import("../jobs/roots.ts");
  const folder = cacheFolder();
  try {
    mkdirSync(folder, { recursive: true });
    const probe = join(folder, `.doctor-${process.pid}`);
    writeFileSync(probe, "");
    rmSync(probe);
  } catch (error) {
    return missing("cache folder", error);
  }
  const setUp = existsSync(join(folder, "environment.json"));
  const next = setUp ? "" : "; set-up has not run, see `npm run setup`";
  return present("cache folder", `${folder}${next}`);
}

/** What the launcher, or the user, told the Vulkan loader. */
function driverChoice(): Finding {
  const { VK_DRIVER_FILES, VK_ICD_FILENAMES, BLIPFLEET_DRIVER, LD_LIBRARY_PATH } = process.env;
  const files = VK_DRIVER_FILES ?? VK_ICD_FILENAMES ?? "the system's own";
  const loader = LD_LIBRARY_PATH ? `, LD_LIBRARY_PATH ${LD_LIBRARY_PATH}` : "";
  return present("driver", `${files} (BLIPFLEET_DRIVER=${BLIPFLEET_DRIVER || "auto"}${loader})`);
}

async function* adapter(flags: Flags): AsyncGenerator<Finding> {
  const { openStagesGroup } = await import("../workers/stages.ts");
  const { cacheFolder } = await import("../jobs/roots.ts");
  try {
    const started = performance.now();
    const group = await openStagesGroup({ cacheFolder: cacheFolder(), testAnyway: true });
    const seconds = ((performance.now() - started) / 1000).toFixed(1);
    try {
      yield* describeAdapter(group.report);
      yield present("kernels", `self-test ${group.selfTest} in ${seconds} s`);
      yield* describeVariants(group.variants);
      if (flags.model !== undefined) yield await memory(group, flags.model, flags);
    } finally {
      await group.close();
    }
  } catch (error) {
    yield missing("adapter", error);
  }
}

function* describeAdapter(report: AdapterReport): Generator<Finding> {
  const { vendor, architecture, device, description, softwareAdapter, subgroupMinSize, subgroupMaxSize } = report;
  const kind = softwareAdapter ? "software" : "GPU";
  yield present("adapter", `${vendor} ${architecture} ${device} (${description}), ${kind}`, report);
  yield present(
    "features",
    `${report.features.join(", ") || "none"}; subgroups of ${subgroupMinSize} to ${subgroupMaxSize}`,
  );
  const limits = Object.entries(report.limits).map(([name, value]) => `${name} ${readable(name, value)}`);
  yield present("limits", limits.join(", "));
  yield present("toggles", report.toggles.join(", ") || "none");
}

/** Which tables chose the kernels' variants, what they chose, and what this adapter refused. */
async function* describeVariants(report: VariantReport): AsyncGenerator<Finding> {
  const tables = report.tables.map(({ file, measured }) => {
    const when = measured ? `measured ${measured.date} on ${measured.device}, ${measured.driver}` : "not measured";
    return `${file} (${when})`;
  });
  yield present("tuning tables", tables.join(", then "), report.tables);
  const { operations } = await import("../tuning/operations.ts");
  const known = new Set(operations.flatMap(({ name, classes }) => classes.map((each) => `${name}, ${each}`)));
  for (const { file, classes: named } of report.tables) {
    const unknown = named.filter((each) => !known.has(each));
    if (unknown.length === 0) continue;
    const detail = `${file}: expected classes of shapes that this version knows, got ${unknown.join("; ")}, which nothing reads; run \`blipfleet tune\`, or delete the file`;
    yield { check: "tuning table", ok: false, needed: false, detail, data: { file, unknown } };
  }
  const classes = new Map<string, string[]>();
  for (const { operation, shapeClass, variant } of report.choices) {
    const key = `${operation} ${variantName(variant)}`;
    classes.set(key, [...(classes.get(key) ?? []), shapeClass]);
  }
  const choices = [...classes].map(([variant, names]) => `${variant} for ${names.join(" and ")}`);
  yield present("variants", choices.join("; "), report.choices);
  for (const refusal of report.refused) {
    yield { check: "refused variant", ok: false, needed: false, detail: refusalLine(refusal), data: refusal };
  }
}

function readable(name: string, value: number): string {
  return /Size$/.test(name) && value >= 1024 * 1024 ? `${Math.floor(value / (1024 * 1024))} MiB` : String(value);
}

type Group = Awaited<ReturnType<typeof import("../workers/stages.ts").openStagesGroup>>;

async function memory(group: Group, ref: string, flags: ModelFlags): Promise<Finding> {
  try {
    const { resolveDtype } = await import("./checkpoint-dtype.ts");
    const dtype = await resolveDtype(ref, flags.dtype);
    const started = performance.now();
    const { purposesOf } = await import("../models/model-card.ts");
    const { openCheckpoint } = await import("../weights/checkpoint.ts");
    const [purpose = "texts"] = await purposesOf(await openCheckpoint(ref));
    const { card, memory, rowBytes } = await group.open({ ref, dtype, purpose, settings: settingsFrom(flags) });
    const seconds = ((performance.now() - started) / 1000).toFixed(1);
    const { allocatedBytes } = await group.stats();
    const { availableMemory, bytesText, planText } = await import("../models/memory-plan.ts");
    const left = availableMemory({ report: group.report, allocatedBytes });
    const room = left === null ? "" : `, ${bytesText(left.bytes)} left (${left.source})`;
    const [what, [queries, width]] = "prompt" in card ? [card.handsOver, card.prompt] : ["vectors", card.vectors];
    return present(
      "model",
      `${ref}: ${card.family} as ${dtype}, ${planText({ weights: memory, row: rowBytes })}; ` +
        `${bytesText(allocatedBytes)} on the adapter in all${room}, ` +
        `loaded in ${seconds} s; image ${card.image.width} x ${card.image.height}, ${what} ${queries} x ${width}, ` +
        `${card.maxPositions} positions; digest ${card.digest.slice(0, 12)}`,
      { card, memory, rowBytes, allocatedBytes, left },
    );
  } catch (error) {
    return missing("model", error);
  }
}

/** A server's program: where it is, and whether it is new enough. Jobs need it, local commands do not. */
async function server(name: "nats-server" | "temporal", oldest: readonly [number, number]): Promise<Finding> {
  try {
    const { findServer } = await import("../workers/servers/binaries.ts");
    const { execFileSync } = await import("node:child_process");
    const path = findServer(name);
    const told = execFileSync(path, ["--version"], { encoding: "utf8", timeout: 20_000 });
    const version = /(\d+)\.(\d+)\.\d+\S*/.exec(told);
    const [major, minor] = [Number(version?.[1]), Number(version?.[2])];
    const ok = major > oldest[0] || (major === oldest[0] && minor >= oldest[1]);
    const detail = `${version?.[0] ?? "unknown version"} at ${path}`;
    return {
      check: name,
      ok,
      needed: true,
      detail: ok ? detail : `expected ${oldest.join(".")} or newer, got ${detail}`,
    };
  } catch (error) {
    return missing(name, error);
  }
}

/** Milliseconds that a server has to answer. */
const patience = 1000;

/** Whether servers answer at the addresses that a `job` command would use now. Only jobs need them. */
async function* answering(): AsyncGenerator<Finding> {
  const { useDevServers } = await import("./dev-state.ts");
  const environment = { ...process.env };
  const whose = useDevServers(environment) === null ? "" : ", from the running `blipfleet dev`";
  yield await reached("Temporal", async () => {
    const { Connection } = await import("@temporalio/client");
    const { temporalSettings, temporalUnavailable } = await import("../workers/temporal-settings.ts");
    const settings = temporalSettings(environment);
    const { address, namespace, apiKey, tls } = settings;
    const options = { ...(apiKey === undefined ? {} : { apiKey }), ...(tls === undefined ? {} : { tls }) };
    try {
      const connection = await Connection.connect({ address, connectTimeout: patience, ...options });
      try {
        // to be connected is not enough: a web proxy between takes connections for a server that is not there
        const ask = () => connection.workflowService.describeNamespace({ namespace });
        await connection.withDeadline(Date.now() + patience, ask);
      } finally {
        await connection.close();
      }
    } catch (error) {
      throw temporalUnavailable(settings, error);
    }
    return `answers at ${address}, namespace ${namespace}${whose}`;
  });
  yield await reached("NATS", async () => {
    const { connectNats } = await import("../messages/connect.ts");
    const connection = await connectNats(environment, { name: "blipfleet doctor", timeoutMs: patience });
    const address = connection.getServer();
    await connection.close();
    return `answers at ${address}${whose}`;
  });
}

/** A server that is not there is no failure; settings that cannot work are. */
async function reached(check: string, ask: () => Promise<string>): Promise<Finding> {
  try {
    return present(check, await ask());
  } catch (error) {
    const { type, message } = describeError(error);
    if (type.endsWith("ConfigError")) return missing(check, error);
    return { check, ok: false, needed: false, detail: `${message} (only jobs need it)` };
  }
}
