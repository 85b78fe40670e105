// What the page knows of the fleet: asked for again and again, and between that kept up to date by events.

import { brief } from "./format.js";

/** The order of trouble: what needs an operator comes first. */
export const SEVERITY = ["dead_lettered", "open", "failing", "down", "late", "waiting", "paused", "fresh"];

/** What is known of one instance, and the state that follows from it. */
export class Instance {
  constructor(row) {
    this.key = row.key;
    this.name = row.name;
    this.kind = row.key.slice(0, row.key.indexOf(":"));
    this.sought = `${row.key} ${row.name}`.toLowerCase();
    this.failures = row.failures;
    this.message = row.message;
    this.breaker = row.breaker;
    this.deadLettered = row.deadLettered;
    this.paused = row.paused;
    this.up = row.up;
    this.lastSuccess = row.lastSuccess && Date.parse(row.lastSuccess);
    // Only the daemon can tell: routine successes come without an event.
    this.late = row.state === "late";
  }

  /** The rank of its state in `SEVERITY`. */
  get rank() {
    if (this.paused) return 6;
    if (this.deadLettered) return 0;
    if (this.breaker !== "closed") return 1;
    if (this.failures > 0) return 2;
    if (this.late) return 4;
    if (this.lastSuccess === null) return 5;
    return this.up ? 7 : 3;
  }

  /** Takes an event; says whether the rest must be asked of the daemon. */
  take(name, event) {
    switch (name) {
      case "poll_failed":
        this.failures = event.failures;
        this.message = event.message;
        return false;
      case "recovered":
      case "reading_changed":
        this.failures = 0;
        this.message = null;
        this.late = false;
        this.lastSuccess = Date.parse(event.at);
        // Whether an endpoint is up is in its reading, not in the event.
        return this.kind === "http" || this.kind === "tcp";
      case "breaker_moved":
        this.breaker = event.to;
        return false;
      case "dead_lettered":
        this.deadLettered = true;
        return false;
      case "revived":
        this.deadLettered = false;
        return false;
      case "paused":
        this.paused = true;
        return false;
      case "resumed":
      case "reconfigured":
        return true;
      default:
        return false;
    }
  }
}

/** Words for an event that an operator wants to hear of, and the state that it is about; `null` for the ordinary course of things. */
export function tidings(name, event) {
  switch (name) {
    case "breaker_moved":
      if (event.from === "half_open" && event.to === "open")
        return ["open", "Its probe failed; the circuit breaker is open again"];
      if (event.to === "open") return ["open", `Circuit breaker opened after ${event.failures} failures in a row`];
      return event.to === "closed" ? ["fresh", "Circuit breaker closed"] : null;
    case "dead_lettered":
      return [
        "dead_lettered",
        event.reason === "permanent_failure"
          ? "Dead-lettered for a permanent failure"
          : `Dead-lettered after ${event.failures} failures in a row`,
      ];
    case "revived":
      return ["fresh", "Back from the dead-letter queue"];
    case "recovered":
      return ["fresh", `Recovered after ${event.failures} ${event.failures === 1 ? "failure" : "failures"}`];
    case "poll_failed":
      return event.failures === 1 ? ["failing", `Poll failed: ${brief(event.message)}`] : null;
    case "added":
      return ["waiting", "Added to the fleet"];
    case "removed":
      return ["paused", "Removed from the fleet"];
    case "paused":
      return ["paused", "Paused"];
    case "resumed":
      return ["waiting", "Polled again"];
    default:
      return null;
  }
}
