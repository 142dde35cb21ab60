import { AlarmClock } from "../../../src/core/alarm-clock.ts";
import type { LaneView } from "../../../src/core/lane.ts";
import { type LaneLimits, LaneTable } from "../../../src/core/lane-table.ts";
import { ManualTime } from "./manual-time.ts";

/** Small enough that things are forgotten. */
const LIMITS: LaneLimits = { maxLanes: 10, maxLaneBytes: 5_000, maxLanesBytes: 20_000 };

/** The lanes of a log, which tells them of its pages. Nothing in them waits for time to pass. */
export function lanesOf(view: LaneView, limits: Partial<LaneLimits> = {}): LaneTable {
  const time = new ManualTime();
  const lanes = new LaneTable(view, { ...LIMITS, ...limits }, new AlarmClock(time, time));
  view.log.onAppend = (page) => lanes.dispatch(page, 0);
  return lanes;
}
