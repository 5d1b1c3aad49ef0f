// The command line: which commands there are, and what becomes of their errors.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Command, CommanderError } from "commander";
import { packageRoot } from "../gpu/package-root.ts";
import { addAskCommand } from "./ask.ts";
import { addBenchCommand } from "./bench.ts";
import { addCapfiltCommand } from "./capfilt.ts";
import { addCaptionCommand } from "./caption.ts";
import { addChatCommand } from "./chat.ts";
import { addClassifyCommand } from "./classify.ts";
import { addDemoCommand } from "./demo.ts";
import { addDevCommand } from "./dev.ts";
import { addDoctorCommand } from "./doctor.ts";
import { describeError, InterruptedError, UsageError } from "./errors.ts";
import { addIndexCommand } from "./indexing.ts";
import { addJobCommand } from "./job.ts";
import { addLaterCommands } from "./later.ts";
import { addMatchCommand } from "./match.ts";
import { tell } from "./output.ts";
import { addSearchCommand } from "./search.ts";
import { addTuneCommand } from "./tune.ts";
import { addWorkerCommand } from "./worker.ts";

/** Exit statuses, the same for every command. */
export const exitStatus = { allDone: 0, failed: 1, wrongUse: 2, interrupted: 130 } as const;

/** All commands; nothing is run yet. Wrong use rejects or throws, and is told by tellError(). */
export function createProgram(): Command {
  const { version } = JSON.parse(readFileSync(join(packageRoot, "package.json"), "utf8"));
  const program = new Command("blipfleet")
    .description(
      "Captions, answers and searches over images with BLIP-family models, here or as jobs over a fleet of GPUs.",
    )
    .version(version)
    .showSuggestionAfterError()
    .exitOverride()
    .configureOutput({ outputError: () => {} }) // told once, below, in our words
    .addHelpText("beforeAll", ({ command }) => {
      const [asked] = command.args.filter((arg) => arg !== "help");
      if (command.commands.length > 0 && asked !== undefined && !asked.startsWith("-")) {
        program.error(`unknown command '${asked}'`, { code: "commander.unknownCommand" });
      }
      return "";
    })
    .addHelpText(
      "after",
      `
Results go to stdout, progress and messages to stderr.
Exit status: 0 all done, 1 some items failed or something needed is missing, 2 wrong use.

Examples:
  blipfleet caption photos/*.jpg --format jsonl
  blipfleet ask photo.jpg "What is in the picture?"
  blipfleet chat photo.jpg
  blipfleet match photo.jpg "a dog on a beach" "a cat on a sofa"
  blipfleet classify photo.jpg cat dog --model openai/clip-vit-base-patch32
  blipfleet index photos --out photos.index
  blipfleet search "a dog on a beach" --index photos.index
  blipfleet dev                       in one terminal, and then
  blipfleet job submit photos --watch in another
`,
    );
  addCaptionCommand(program);
  addAskCommand(program);
  addChatCommand(program);
  addMatchCommand(program);
  addClassifyCommand(program);
  addCapfiltCommand(program);
  addIndexCommand(program);
  addSearchCommand(program);
  addJobCommand(program);
  addWorkerCommand(program);
  addDevCommand(program);
  addDemoCommand(program);
  addDoctorCommand(program);
  addBenchCommand(program);
  addTuneCommand(program);
  addLaterCommands(program);
  for (const command of everyCommand(program)) command.exitOverride().configureOutput({ outputError: () => {} });
  return program;
}

function everyCommand(command: Command): Command[] {
  return [...command.commands, ...command.commands.flatMap(everyCommand)];
}

/** Errors whose class says that the caller asked for something that cannot be: wrong use. */
const callerMistakes = new Set([
  "CheckpointError",
  "ConfigError",
  "ImageIndexError",
  "ManifestError",
  "MemorySettingError",
  "MetricsPortError",
  "NatsConfigError",
  "PathError",
  "TemporalConfigError",
  "TextError",
  "TokenizerError",
  "UnsupportedModelError",
  "WeightsError",
]);

/**
 * Tell one sentence on stderr about why a command ended.
 * @param args the command line, to name the help that fits
 * @returns the exit status
 */
export function tellError(error: unknown, args: readonly string[]): number {
  if (error instanceof CommanderError) return tellCommander(error, args);
  const { type, message } = describeError(error);
  if (error instanceof InterruptedError) {
    tell(`blipfleet: ${message}`);
    return exitStatus.interrupted;
  }
  if (error instanceof UsageError) {
    tell(`blipfleet: ${message}`);
    return exitStatus.wrongUse;
  }
  tell(`blipfleet: ${type}: ${message}`);
  if (process.env.BLIPFLEET_DEBUG && error instanceof Error) tell(`${error.stack}`);
  return callerMistakes.has(type) ? exitStatus.wrongUse : exitStatus.failed;
}

/** Commander's own errors: --help and --version are none, the rest is wrong use. */
function tellCommander({ code, exitCode, message }: CommanderError, args: readonly string[]): number {
  if (exitCode === 0) return exitStatus.allDone;
  // "blipfleet" or "blipfleet job" alone: the help was printed
  if (code === "commander.help") return exitStatus.wrongUse;
  const commands = args.slice(0, args[0] === "job" ? 2 : 1).filter((arg) => /^[a-z]+$/.test(arg));
  const help = ["blipfleet", ...(code === "commander.unknownCommand" ? commands.slice(0, -1) : commands), "--help"];
  tell(
    `blipfleet: ${message
      .replace(/^error: /, "")
      .replace(/\s+/g, " ")
      .replace(/\.$/, "")}; see \`${help.join(" ")}\``,
  );
  return exitStatus.wrongUse;
}
