// The page of monitoring: what fails, asked for anew when something stirs, and the settings.

import { get } from "./api.js";
import { showBreakers } from "./breakers.js";
import { showDeadLetters } from "./dead-letters.js";
import { by, fill } from "./dom.js";
import { LiveEvents } from "./live.js";
import { loadSettings } from "./settings-form.js";
import { problem } from "./tell.js";

/** Every instance that fails, a page at a time. */
async function loadTroubles() {
  const troubles = [];
  let next = null;
  do {
    const answer = await get(`/api/monitoring/troubles${next === null ? "" : `?after=${encodeURIComponent(next)}`}`);
    troubles.push(...answer.instances);
    next = answer.next;
  } while (next !== null);
  const deadLetters = troubles.filter((it) => it.deadLetter.present);
  const live = troubles.filter((it) => it.breaker.state !== "unknown" && !it.deadLetter.present);
  showDeadLetters(deadLetters, loadTroubles);
  showBreakers(live, deadLetters.length, loadTroubles);
}

let timer = 0;
function soon() {
  timer ||= setTimeout(() => {
    timer = 0;
    // What is shown stays; that the daemon cannot be reached stands above.
    loadTroubles().catch(() => {});
  }, 1_000);
}

/** Events after which other instances may fail than before. */
const STIRRING = new Set([
  "breaker_moved",
  "dead_lettered",
  "recheck_failed",
  "revived",
  "poll_failed",
  "recovered",
  "paused",
  "resumed",
  "settings_applied",
]);
new LiveEvents({
  onEvent: (name) => {
    if (STIRRING.has(name)) soon();
  },
  onGap: () => Promise.all([loadSettings(), loadTroubles()]).catch((error) => fill(by("dlq-told"), problem(error))),
});
