// The stream of events, and what to do when it breaks: say so, come back, and catch up.

import { by } from "./dom.js";
import { clock } from "./format.js";

const NAMES = [
  "added",
  "removed",
  "reconfigured",
  "paused",
  "resumed",
  "reading_changed",
  "poll_failed",
  "breaker_moved",
  "dead_lettered",
  "recheck_failed",
  "revived",
  "recovered",
  "settings_applied",
  "inventory_applied",
  "load_changed",
];
/** How long to wait before a refused stream is asked for again, in milliseconds. */
const PATIENCE = 5_000;

/**
 * Calls `onEvent(name, data)` for each event, and `onGap` when events may have been missed, after the first connection
 * too: what is shown must be asked for anew. The state of the connection stands in the page's frame.
 */
export class LiveEvents {
  constructor({ onEvent, onGap }) {
    this.onEvent = onEvent;
    this.onGap = onGap;
    this.lastHeard = Date.now();
    this.open();
    window.addEventListener("offline", () => this.lost());
    window.addEventListener("online", () => this.open());
    // A browser has few connections to one host; a page that nobody looks at leaves its own to others.
    document.addEventListener("visibilitychange", () => (document.hidden ? this.close() : this.open()));
  }

  open() {
    this.close();
    show("connecting");
    const source = new EventSource("/api/events");
    this.source = source;
    const heard = () => {
      this.lastHeard = Date.now();
    };
    source.onopen = () => {
      heard();
      show("live");
      this.onGap();
    };
    source.onerror = () => {
      this.lost();
      // A refused stream is closed for good, a broken one is opened again by the browser.
      if (source.readyState === EventSource.CLOSED && source === this.source)
        this.retry = setTimeout(() => this.open(), PATIENCE);
    };
    source.addEventListener("lagged", () => this.onGap());
    for (const name of NAMES) {
      source.addEventListener(name, (message) => {
        heard();
        this.onEvent(name, JSON.parse(message.data));
      });
    }
  }

  close() {
    clearTimeout(this.retry);
    this.source?.close();
  }

  lost() {
    show("lost", this.lastHeard);
    // Whether it is the session that has ended shows in the next call.
    this.onGap();
  }
}

const WORDS = {
  live: "Live",
  lost: "Connection lost",
  connecting: "Connecting",
};

/** What the frame says of the connection. */
function show(state, lastHeard) {
  const pill = by("connection");
  const banner = by("offline");
  pill.hidden = false;
  if (state === "connecting" && pill.dataset.state === "lost") return;
  pill.dataset.state = state;
  pill.textContent = WORDS[state];
  banner.hidden = state !== "lost";
  if (state === "lost")
    banner.textContent = `The connection to the daemon is lost. What is shown was last heard of at ${clock(lastHeard)}; trying again.`;
}
