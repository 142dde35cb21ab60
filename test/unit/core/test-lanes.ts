import type { LaneView } from "../../../src/core/lane/lane.ts";
import { type LaneLimits, LaneTable } from "../../../src/core/lane/lane-table.ts";
import type { Clock, Timers } from "../../../src/core/ports.ts";
import { AlarmClock } from "../../../src/core/stream/alarm-clock.ts";
import { ManualTime } from "./manual-time.ts";

/** Small enough that things are forgotten. */
const LIMITS: LaneLimits = { maxLanes: 10, maxLaneBytes: 5_000, maxLanesBytes: 20_000 };

/** The lanes of a log, which tells them of its pages. */
export function lanesOf(
  view: LaneView,
  limits: Partial<LaneLimits> = {},
  time: Clock & Timers = new ManualTime(),
): LaneTable {
  const lanes = new LaneTable(view, { ...LIMITS, ...limits }, new AlarmClock(time, time));
  view.log.onAppend = (page) => lanes.dispatch(page, time.monotonic());
  return lanes;
}
