/** A topic pattern, taken apart once. `*` stands for exactly one token, a final `>` for one or more. */
export interface TopicPattern {
  readonly text: string;
  /** Without the final `>`. */
  readonly tokens: readonly string[];
  /** Ends with `>`. */
  readonly tail: boolean;
  /** No wildcard at all: it matches only the topic with this very text. */
  readonly exact: boolean;
}

const TOKEN = /^[A-Za-z0-9_%-]+$/;
const MAX_PATTERN_BYTES = 255;

/** Whether parsing failed, as a sentence about the text; otherwise the pattern. */
export type ParsedPattern = { readonly pattern: TopicPattern } | { readonly problem: string };

/** Takes a pattern apart. The problem, if any, completes the sentence "`orders..eu` ...". */
export function parseTopicPattern(text: string): ParsedPattern {
  if (text === "") {
    return { problem: "is empty: leave `topics` empty to mean every topic" };
  }
  if (text.length > MAX_PATTERN_BYTES) {
    return { problem: `is longer than ${MAX_PATTERN_BYTES} bytes` };
  }
  const tokens = text.split(".");
  const tail = tokens.at(-1) === ">";
  if (tail) {
    tokens.pop();
  }
  for (const token of tokens) {
    const problem = tokenProblem(token);
    if (problem !== undefined) {
      return { problem };
    }
  }
  return { pattern: { text, tokens, tail, exact: !tail && !tokens.includes("*") } };
}

function tokenProblem(token: string): string | undefined {
  if (token === "*" || TOKEN.test(token)) {
    return undefined;
  }
  if (token === "") {
    return "has an empty token: dots separate tokens and stand neither first, last nor twice";
  }
  if (token === ">") {
    return "has `>` before its end: it stands for everything that follows and so comes last";
  }
  if (token.includes("*") || token.includes(">")) {
    return `mixes a wildcard with text in the token \`${token}\`: a wildcard is a token of its own`;
  }
  return `has the token \`${token}\`: tokens are letters, digits, \`_\`, \`-\` and \`%\``;
}

/** A source's topic that names columns, `orders.{region}`: it stands for as many topics as those have values. */
export function isTopicTemplate(topic: string): boolean {
  return topic.includes("{");
}

/**
 * Whether the pattern matches the topic; for a template, whether it matches any of the topics that the template stands
 * for. Token by token, for values are escaped so that they never hold a dot.
 */
export function patternMatches(pattern: TopicPattern, topic: string): boolean {
  if (pattern.exact && !isTopicTemplate(topic)) {
    return pattern.text === topic;
  }
  const tokens = topicTokens(topic);
  const wanted = pattern.tokens;
  if (pattern.tail ? tokens.length <= wanted.length : tokens.length !== wanted.length) {
    return false;
  }
  return wanted.every((want, at) => want === "*" || mayBecome(tokens[at] ?? "", want));
}

/** Whether the pattern matches every topic that the other one matches. */
export function patternCovers(pattern: TopicPattern, other: Pick<TopicPattern, "tokens" | "tail">): boolean {
  const { tokens, tail } = pattern;
  const longer = other.tail ? other.tokens.length + 1 : other.tokens.length;
  if (tail ? longer <= tokens.length : other.tail || longer !== tokens.length) {
    return false;
  }
  return tokens.every((token, at) => token === "*" || token === other.tokens[at]);
}

/** The tokens of a topic or template. In those of a template `{}` stands for a value. */
export function topicTokens(topic: string): readonly string[] {
  // The name of a column may hold a dot.
  return (isTopicTemplate(topic) ? topic.replaceAll(/\{[^{}]+\}/g, "{}") : topic).split(".");
}

/**
 * Whether a token of a template may become this one: it begins and ends as the template's literal text does, with a value,
 * which is never empty, in between. Of several placeholders in one token only the outer text is compared.
 */
export function mayBecome(token: string, text: string): boolean {
  const first = token.indexOf("{");
  if (first < 0) {
    return token === text;
  }
  const head = token.slice(0, first);
  const end = token.slice(token.lastIndexOf("}") + 1);
  return text.startsWith(head) && text.endsWith(end) && text.length > head.length + end.length;
}
