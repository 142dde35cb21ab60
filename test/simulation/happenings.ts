import type { Client } from "./client.ts";
import { FAST } from "./outlet.ts";
import type { World } from "./world.ts";
import { chooseAppetite, pick } from "./world-options.ts";

/** One kind of thing that may happen, and how often beside the others. */
interface Happening {
  readonly weight: number;
  readonly happen: (world: World) => void;
}

const HAPPENINGS: readonly Happening[] = [
  { weight: 400, happen: write },
  { weight: 60, happen: (world) => eachIdle(world, (client) => world.connect(client)) },
  { weight: 40, happen: (world) => some(world)?.cut() },
  { weight: 20, happen: (world) => some(world)?.setAppetite(chooseAppetite(world.random)) },
  { weight: 20, happen: (world) => some(world)?.setAppetite(FAST) },
  { weight: 10, happen: (world) => some(world)?.nudge() },
  { weight: 8, happen: replace },
  { weight: 6, happen: (world) => world.writers.toggleLong() },
  { weight: 4, happen: forget },
  { weight: 2, happen: (world) => world.database.goAway(world.random.chance(0.5) ? "refusing" : "hanging") },
  { weight: 6, happen: (world) => world.database.comeBack() },
  { weight: 1, happen: restartProcess },
  { weight: 1, happen: restore },
];

const TOTAL = HAPPENINGS.reduce((sum, { weight }) => sum + weight, 0);

/** Lets one thing happen. */
export function happen(world: World): void {
  let at = world.random.below(TOTAL);
  for (const { weight, happen: doIt } of HAPPENINGS) {
    at -= weight;
    if (at < 0) {
      doIt(world);
      return;
    }
  }
}

function write(world: World): void {
  world.writers.write(() => {
    for (const replica of world.replicas) {
      // A notification may come late or never.
      if (world.random.chance(0.7)) {
        replica.wakeUp.nudge();
      }
    }
  });
}

function some(world: World): Client | undefined {
  return world.clients[world.random.below(world.clients.length)];
}

function eachIdle(world: World, then: (client: Client) => void): void {
  for (const client of world.clients) {
    if (client.idle) {
      then(client);
    }
  }
}

/** Somebody leaves for good, and somebody else comes. */
function replace(world: World): void {
  const at = world.random.below(world.clients.length);
  world.clients[at]?.cut();
  world.clients.splice(at, 1);
  world.addClient();
}

function forget(world: World): void {
  const { truth } = world.database;
  if (world.options.forgets && truth.head > 0) {
    const kept = world.random.below(pick(world.random, [10, 300, 2_000]));
    void world.database.retainFrom(truth.boundaryUpTo(Math.max(0, truth.head - kept)) + 1);
  }
}

/** A process goes down, with grace or without; its clients are cut when it has gone. */
function restartProcess(world: World): void {
  const index = world.random.below(world.replicas.length);
  const replica = world.replicas[index];
  if (replica === undefined || replica.state !== "up") {
    return;
  }
  const goneFrom = () => {
    for (const client of world.clients) {
      if (client.replica === replica) {
        client.cut();
      }
    }
  };
  const graceMs = world.random.chance(0.5) ? world.random.below(3_000) : 0;
  void replica
    .drain(graceMs)
    .then(() => replica.stop())
    .then(() => {
      goneFrom();
      // Another one may have taken its place, when its epoch ended meanwhile.
      if (world.replicas[index] === replica) {
        world.restart(index);
      }
    });
}

/** The database is put back to an earlier moment. */
function restore(world: World): void {
  const { database, random } = world;
  const { truth } = database;
  if (world.options.forgets || truth.head === 0 || world.usable().length < world.replicas.length) {
    return;
  }
  world.tally.count("restores");
  const version = truth.boundaryUpTo(Math.max(0, truth.head - random.below(40)));
  world.writers.endLong();
  void database.restore(version).then(() => {
    for (const replica of world.replicas) {
      replica.wakeUp.nudge();
    }
  });
}
