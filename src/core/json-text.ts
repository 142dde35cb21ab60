/** What is wrong with a text that should be JSON, completing a sentence about it; `undefined` when nothing is. */
export function jsonProblem(text: string): string | undefined {
  try {
    JSON.parse(text);
    return undefined;
  } catch (error) {
    return `must be valid JSON: ${error instanceof Error ? error.message : String(error)}`;
  }
}
