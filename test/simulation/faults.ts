import type { FrameFilter } from "./client.ts";

/** Something wrong in the core, to see whether the checker sees it. */
export interface PlantedFault {
  readonly name: string;
  /** `spoil` is for what streams say; everything else is put into the core's own classes until it is removed. */
  readonly plant: () => { readonly spoil: FrameFilter | undefined; readonly remove: () => void };
}
