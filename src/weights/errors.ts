// What can be wrong with a checkpoint or the place it comes from. All are the caller's mistakes but HubError.

/** Lines of problems that a message shows; `problems` holds all. */
const shown = 40;

/** Weight files that cannot be used: every problem at once, found before anything is uploaded. */
export class WeightsError extends Error {
  override name = "WeightsError";
  readonly problems: readonly string[];

  constructor(where: string, problems: readonly string[]) {
    const rest = problems.length - shown;
    const lines = [...problems.slice(0, shown), ...(rest > 0 ? [`and ${rest} more`] : [])];
    const count = problems.length === 1 ? "1 problem" : `${problems.length} problems`;
    super(
      `${where}: expected usable weights, got ${count}:\n${lines.map((line) => `  ${line.replaceAll("\n", "\\n")}`).join("\n")}`,
    );
    this.problems = problems;
  }
}

/** A reference that names no usable checkpoint, or one that may not be read. */
export class CheckpointError extends Error {
  override name = "CheckpointError";
}

/** A file of settings (config.json, preprocessor_config.json, …) that is missing, malformed or asks for what is not built. */
export class ConfigError extends Error {
  override name = "ConfigError";
}

/** The hub does not answer as it should; trying again later may help. */
export class HubError extends Error {
  override name = "HubError";
}
