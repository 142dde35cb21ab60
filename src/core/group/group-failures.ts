import { FeedError } from "../errors.ts";

/** For what comes from a member that is none any more. */
export function memberGone(id: string, generation: number): FeedError {
  return new FeedError(
    "SUBSCRIPTION_FENCED",
    `Generation ${generation} is no member of group "${id}" any more: its stream has ended, another took its place, or the group has moved.`,
    "Subscribe again: what this member did not acknowledge comes again, to whoever has its keys then.",
  );
}

/** For what is said of a group that this replica held until now. */
export function groupGone(id: string): FeedError {
  return new FeedError(
    "SUBSCRIPTION_FENCED",
    `Group "${id}" is not held here any more: it was paused, moved, deleted, or another replica has it.`,
    "Subscribe again: what was not acknowledged comes again.",
  );
}

/** For a cursor that was given to another member, or to this one before it came again. */
export function foreignCursor(id: string, generation: number): FeedError {
  return new FeedError(
    "CURSOR_INVALID",
    `The cursor does not say what generation ${generation} of group "${id}" was given: it is of another member, of an earlier stream, or of another history.`,
    "Acknowledge with a cursor of the stream, or page, that told this generation: what was given before comes again. Nothing of this call has happened.",
  );
}

/** For one more than a group may have. */
export function tooManyMembers(id: string, members: number): FeedError {
  return new FeedError(
    "SUBSCRIPTION_BUSY",
    `Group "${id}" has ${members} members, as many as it may.`,
    "Wait for one to leave, or create the group with more `max_members`.",
    { retryAfterMs: 5_000 },
  );
}

/** For one more than this server may have. */
export function tooManyMembersHere(members: number): FeedError {
  return new FeedError(
    "LIMIT_EXCEEDED",
    `This server has ${members} members of groups, as many as it may.`,
    "Connect to another replica, or start the server with a higher --max-streams.",
    { retryAfterMs: 5_000 },
  );
}

/** For a group of another replica that cannot be reached. */
export function heldElsewhere(id: string, url: string | undefined, forMs: number, cause?: unknown): FeedError {
  const where =
    url === undefined ? "a replica that has no address for others" : `the replica at ${url.replace("#", " on ")}`;
  return new FeedError(
    "SUBSCRIPTION_BUSY",
    `Group "${id}" is held by ${where}, which this one cannot reach.`,
    url === undefined
      ? "Connect to that replica, or give each one `--advertise-url`. If it is gone, try again in a moment."
      : "Try again in a moment: if that replica is gone, this one takes the group up. If it is not, see that its `--advertise-url` can be reached from here.",
    { retryAfterMs: Math.max(500, Math.ceil(forMs)), cause },
  );
}

/** For a replay that nobody would take. */
export function nobodyToReplayTo(id: string): FeedError {
  return new FeedError(
    "SUBSCRIPTION_BUSY",
    `Group "${id}" has no members: dead letters are delivered again to them.`,
    "Subscribe with a member, and ask again.",
    { retryAfterMs: 1_000 },
  );
}
