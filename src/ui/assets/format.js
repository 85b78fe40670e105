// Moments, spans and amounts in the words of the page.

/** Sweden writes moments as logs do: 2026-01-31 13:07:00. */
const WRITTEN = "sv-SE";

/** @param {number} millis */
export function span(millis) {
  const seconds = Math.abs(millis) / 1000;
  if (seconds < 1) return `${Math.round(Math.abs(millis))} ms`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${Math.round(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172_800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86_400)} d`;
}

/** Spans that nobody can follow are none. */
const MOMENT = 1_000;

/** How long ago `moment` was, or how far ahead it is. @param {string | number | null} moment */
export function ago(moment, now = Date.now()) {
  if (moment === null || moment === undefined) return "never";
  const away = new Date(moment).getTime() - now;
  if (Math.abs(away) < MOMENT) return "now";
  return away > 0 ? `in ${span(away)}` : `${span(away)} ago`;
}

/** @param {string | number | null} moment */
export function clock(moment) {
  if (moment === null || moment === undefined) return "–";
  return new Date(moment).toLocaleTimeString(WRITTEN, { hour12: false });
}

/** @param {string | number | null} moment */
export function date(moment) {
  if (moment === null || moment === undefined) return "–";
  return new Date(moment).toLocaleString(WRITTEN, { hour12: false });
}

/** @param {number | null | undefined} count */
export function bytes(count) {
  if (count === null || count === undefined) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let power = 0;
  while (count >= 1024 && power < units.length - 1) {
    count /= 1024;
    power += 1;
  }
  return `${count >= 100 || power === 0 ? Math.round(count) : count.toFixed(1)} ${units[power]}`;
}

/** @param {number | null | undefined} share */
export function percent(share) {
  return share === null || share === undefined ? "–" : `${Math.round(share * 100)} %`;
}

/** Why a poll failed, without the address that was asked, where there is little room. */
export function brief(message) {
  return message?.replace(/^[A-Z]+ \S+ on \S+: /, "").slice(0, 120);
}

/** The words for a state. */
export const STATES = {
  fresh: "fresh",
  waiting: "not polled yet",
  late: "late",
  down: "down",
  failing: "failing",
  open: "breaker open",
  dead_lettered: "dead letter",
  paused: "paused",
};
