// Why an evaluation cannot be made, or its result not be trusted: one sentence with the next step.

/** A checkpoint, a set, a recorded answer or a program that is missing or is not the one expected. */
export class EvaluationError extends Error {
  override name = "EvaluationError";
}

/** The scenes drawn here are not those that transformers was asked about, so there is nothing to compare with. */
export class OtherScenesError extends EvaluationError {
  override name = "OtherScenesError";
}
