/** Where this folder writes what an operator must know; a pino logger is one. */
export interface RpcLog {
  error(fields: Readonly<Record<string, unknown>>, message: string): void;
}
