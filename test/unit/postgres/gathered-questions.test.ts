import { expect, test } from "vitest";
import { GatheredQuestions } from "../../../src/postgres/gathered-questions.ts";

const never = new AbortController().signal;
const turn = () => new Promise((resolve) => setImmediate(resolve));

/** A database that answers when it is let: with the text of a number, and with nothing about negative ones. */
function setUp() {
  const statements: { readonly keys: readonly number[]; readonly signal: AbortSignal; answer(): void; fail(): void }[] =
    [];
  const questions = new GatheredQuestions<number, string>((keys, signal) => {
    const { promise, resolve, reject } = Promise.withResolvers<ReadonlyMap<number, string>>();
    const answers = new Map(keys.filter((key) => key >= 0).map((key) => [key, String(key)]));
    statements.push({ keys, signal, answer: () => resolve(answers), fail: () => reject(new Error("away")) });
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
    return promise;
  });
  return { statements, questions };
}

test("what is asked at once is one statement, each key once, and each gets its own answer", async () => {
  const { statements, questions } = setUp();
  const asked = [3, -1, 3, 5].map((key) => questions.about(key, never));
  await turn();
  expect(statements.map(({ keys }) => keys)).toEqual([[3, -1, 5]]);
  statements[0]?.answer();
  expect(await Promise.all(asked)).toEqual(["3", undefined, "3", "5"]);
});

test("G8 what is asked while an answer is under way waits for the next, which is no older than the question", async () => {
  const { statements, questions } = setUp();
  const first = questions.about(1, never);
  await turn();
  const later = [questions.about(1, never), questions.about(2, never)];
  await turn();
  expect(statements.length).toBe(1);
  statements[0]?.answer();
  expect(await first).toBe("1");
  await turn();
  expect(statements.map(({ keys }) => keys)).toEqual([[1], [1, 2]]);
  statements[1]?.answer();
  expect(await Promise.all(later)).toEqual(["1", "2"]);
});

test("ten thousand questions are ten statements, one after another", async () => {
  const { statements, questions } = setUp();
  const asked = Array.from({ length: 10_000 }, (_, key) => questions.about(key, never));
  for (let i = 0; i < 10; i++) {
    await turn();
    expect(statements.length).toBe(i + 1);
    statements[i]?.answer();
  }
  expect((await Promise.all(asked))[9_999]).toBe("9999");
  await turn();
  expect(statements.length).toBe(10);
});

test("a failure is told to those who asked, and the next statement goes on", async () => {
  const { statements, questions } = setUp();
  const failing = questions.about(1, never);
  await turn();
  const later = questions.about(2, never);
  statements[0]?.fail();
  await expect(failing).rejects.toThrow("away");
  await turn();
  statements[1]?.answer();
  expect(await later).toBe("2");
});

test("who leaves is told at once; a statement for which nobody waits is given up", async () => {
  const { statements, questions } = setUp();
  const [one, other] = [new AbortController(), new AbortController()];
  const left = [questions.about(1, one.signal), questions.about(2, other.signal)];
  await turn();
  const waiting = questions.about(3, other.signal);
  one.abort(new Error("one"));
  await expect(left[0]).rejects.toThrow("one");
  expect(statements[0]?.signal.aborted).toBe(false);
  other.abort(new Error("other"));
  await expect(left[1]).rejects.toThrow("other");
  await expect(waiting).rejects.toThrow("other");
  expect(statements[0]?.signal.aborted).toBe(true);
  await turn();
  expect(statements.length).toBe(1);
  await expect(questions.about(1, one.signal)).rejects.toThrow("one");
  const again = questions.about(1, never);
  await turn();
  statements[1]?.answer();
  expect(await again).toBe("1");
});
