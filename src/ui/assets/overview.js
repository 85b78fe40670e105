// The fleet at a glance: a tile for each instance, figures, and what happened lately.

import { get, may } from "./api.js";
import { by, fill, h } from "./dom.js";
import { Instance, SEVERITY, tidings } from "./fleet.js";
import { STATES, ago, brief, clock, percent, span } from "./format.js";
import { LiveEvents } from "./live.js";
import { problem } from "./tell.js";
import { VirtualGrid } from "./virtual-grid.js";

const EVENTS_SHOWN = 60;
/** How often what is in sight is drawn again, in milliseconds: ages move. */
const REDRAW = 1_000;
/** How long tiles stay in their order after a change, in milliseconds: tiles that jump while one reads them help nobody. */
const REST = 500;
/** How many instances one answer has; a large fleet takes several. */
const PAGE = 1_000;
/** How often the fleet is asked for anew, in milliseconds; a large one less often, by the number of its pages. */
const REFRESH = 5_000;
/** How soon it may be asked for again when an event tells only half, for each page of it. */
const REFRESH_SOON = 2_000;
/** States in which something is wrong. */
const TROUBLE = 5;

/** @type {Map<string, Instance>} */
let fleet = new Map();
const wanted = { text: "", rank: null };
const dirty = new Set();

/** The root's font size, by which everything grows on a wall. */
const REM = Number.parseFloat(getComputedStyle(document.documentElement).fontSize);

const grid = new VirtualGrid(by("grid"), {
  width: 16 * REM,
  height: 4.15 * REM,
  label: "Instances",
  make: () =>
    h(
      "a",
      { class: "tile state" },
      h("span", { class: "shape", "aria-hidden": "true" }),
      h("span", { class: "name", dir: "auto" }),
      h("span", { class: "kind" }),
      h("span", { class: "what" }, h("b"), " ", h("bdi")),
    ),
  paint,
});

function paint(tile, instance) {
  const now = Date.now();
  const state = SEVERITY[instance.rank];
  const [, name, kind, what] = tile.children;
  if (tile.dataset.key !== instance.key) {
    tile.dataset.key = instance.key;
    tile.href = `/instances/${encodeURIComponent(instance.key)}`;
    kind.textContent = instance.kind;
  }
  if (name.textContent !== instance.name) name.textContent = instance.name;
  if (tile.dataset.state !== state) {
    tile.dataset.state = state;
    what.firstChild.textContent = STATES[state];
  }
  const about = brief(instance.message) ?? (instance.lastSuccess === null ? "" : ago(instance.lastSuccess, now));
  if (what.lastChild.textContent !== about) what.lastChild.textContent = about;
}

/** Counts and sorts anew, in one walk: instances come in the order of their keys, and stay in it within a state. */
function arrange() {
  const ranks = SEVERITY.map(() => []);
  const counts = SEVERITY.map(() => 0);
  for (const instance of fleet.values()) {
    const { rank } = instance;
    counts[rank] += 1;
    if ((wanted.rank === null || wanted.rank === rank) && (wanted.text === "" || instance.sought.includes(wanted.text)))
      ranks[rank].push(instance);
  }
  const order = ranks.flat();
  grid.show(order);
  showCounts(counts);
  by("nothing").hidden = order.length > 0;
  if (order.length === 0) fill(by("nothing"), ...nothing());
}

function nothing() {
  if (fleet.size > 0)
    return [h("strong", {}, "No instance matches"), h("p", {}, "Another word, or another state, may find it.")];
  const add =
    may("admin") && h("a", { class: "button primary", href: "/settings/instances?add" }, "Add the first instance");
  return [
    h("strong", {}, "No instances yet"),
    h("p", {}, "Pulse watches Proxmox VE, Backup Server and Mail Gateway hosts, and HTTP and TCP endpoints."),
    add || null,
  ];
}

function showCounts(counts) {
  SEVERITY.forEach((state, rank) => {
    const chip = by(`count-${state}`);
    const text = String(counts[rank]);
    const number = chip.querySelector("b");
    if (number.textContent !== text) number.textContent = text;
    chip.hidden = counts[rank] === 0 && state !== "fresh" && wanted.rank !== rank;
  });
  const trouble = counts.slice(0, TROUBLE).reduce((sum, count) => sum + count, 0);
  const instances = `${fleet.size} ${fleet.size === 1 ? "instance" : "instances"}`;
  const verdict =
    fleet.size === 0
      ? "Nothing is watched yet"
      : trouble === 0
        ? `${instances}, none in trouble`
        : `${instances}, ${trouble} in trouble`;
  if (by("verdict").textContent !== verdict) by("verdict").textContent = verdict;
  let x = 0;
  const parts = SEVERITY.toReversed().map((state, index) => {
    const width = fleet.size === 0 ? 0 : (counts[SEVERITY.length - 1 - index] / fleet.size) * 1000;
    x += width;
    return [state, x - width, width];
  });
  const bars = by("proportions");
  if (bars.children.length === 0) bars.append(...parts.map(([state]) => bar(state)));
  parts.forEach(([, left, width], index) => {
    bars.children[index].setAttribute("x", left.toFixed(1));
    bars.children[index].setAttribute("width", width.toFixed(1));
  });
}

function bar(state) {
  const rect = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  rect.setAttribute("class", "state");
  rect.dataset.state = state;
  rect.setAttribute("height", "6");
  return rect;
}

/** The whole fleet, a page at a time, so that no answer keeps the page from drawing. */
async function refresh() {
  refreshed = Date.now();
  try {
    const found = new Map();
    let next = null;
    do {
      const answer = await get(
        `/api/monitoring/overview?limit=${PAGE}${next === null ? "" : `&after=${encodeURIComponent(next)}`}`,
      );
      for (const row of answer.instances) found.set(row.key, new Instance(row));
      next = answer.next;
      if (next === null) showFigures(answer);
    } while (next !== null);
    fleet = found;
    document.getElementById("first-paint")?.remove();
    by("grid").hidden = false;
    fill(by("told"));
    arrange();
  } catch (error) {
    // That the daemon cannot be reached stands above already.
    if (by("offline").hidden) fill(by("told"), problem(error));
  }
}

function showFigures(answer) {
  by("lag").textContent = span(answer.lagMillis);
  by("rate").textContent = answer.pollsPerSecond.toFixed(1);
  by("slots").textContent = percent(answer.slotsUsed);
  by("stretched").hidden = answer.stretch <= 1.01;
  by("stretch").textContent = `${answer.stretch.toFixed(1)} ×`;
  by("adaptive").hidden = answer.enabled;
}

let refreshed = 0;
let timer = 0;
/** How long lies between two askings at the least. */
const pause = () => REFRESH_SOON * Math.max(1, Math.ceil(fleet.size / PAGE));

/** Asks for the fleet again, in turn or soon, however many events want it. */
function refreshIn(wait) {
  clearTimeout(timer);
  timer = setTimeout(async () => {
    if (!document.hidden) await refresh();
    refreshIn(Math.max(REFRESH, pause()));
  }, wait);
}

let soon = 0;
function refreshSoon() {
  if (soon > Date.now()) return;
  soon = Math.max(Date.now() + REST, refreshed + pause());
  refreshIn(soon - Date.now());
}

const news = by("events");
const untold = [];

function tell(key, at, [state, words]) {
  const name = fleet.get(key)?.name ?? key;
  return h(
    "li",
    { class: "state", "data-state": state },
    h("span", { class: "shape", "aria-hidden": "true" }),
    h(
      "div",
      {},
      h("time", {}, clock(at)),
      h("a", { href: `/instances/${encodeURIComponent(key)}`, dir: "auto" }, name),
      h("p", { dir: "auto" }, words),
    ),
  );
}

/** What happened before this page was opened. */
async function tellRecent() {
  const { events } = await get("/api/events/recent");
  news.replaceChildren(
    ...events
      .map(({ event, key, at, ...more }) => [key, at, tidings(event, more)])
      .filter(([, , words]) => words)
      .map((it) => tell(...it)),
  );
  by("no-events").hidden = news.children.length > 0;
}

function tellAll() {
  const latest = untold
    .splice(0)
    .slice(-EVENTS_SHOWN)
    .reverse()
    .map((it) => tell(...it));
  news.prepend(...latest);
  while (news.children.length > EVENTS_SHOWN) news.lastElementChild.remove();
  by("no-events").hidden = news.children.length > 0;
}

let frame = 0;
function draw() {
  frame = 0;
  grid.repaint((instance) => dirty.has(instance.key));
  dirty.clear();
}

/** Many calls in a short time are one. */
const pending = new Map();
function later(act) {
  if (!pending.has(act))
    pending.set(
      act,
      setTimeout(() => {
        pending.delete(act);
        act();
      }, REST),
    );
}

function take(name, event) {
  const { at, key } = event;
  if (name === "settings_applied" || name === "load_changed") return refreshSoon();
  if (key === undefined) return;
  const words = tidings(name, event);
  if (words) {
    untold.push([key, at, words]);
    if (untold.length > 2 * EVENTS_SHOWN) untold.splice(0, EVENTS_SHOWN);
    later(tellAll);
  }
  if (name === "added" || name === "removed") return refreshSoon();
  const instance = fleet.get(key);
  if (!instance) return;
  const before = instance.rank;
  if (instance.take(name, event)) refreshSoon();
  dirty.add(key);
  frame ||= requestAnimationFrame(draw);
  if (instance.rank !== before) later(arrange);
}

SEVERITY.forEach((state, rank) => {
  by(`count-${state}`).addEventListener("click", () => {
    wanted.rank = wanted.rank === rank ? null : rank;
    SEVERITY.forEach((other, index) =>
      by(`count-${other}`).setAttribute("aria-pressed", String(wanted.rank === index)),
    );
    arrange();
  });
});
by("search").addEventListener("input", (event) => {
  wanted.text = event.target.value.trim().toLowerCase();
  arrange();
});

function catchUp() {
  refreshSoon();
  tellRecent().catch(() => {
    /* The refresh tells why. */
  });
}

await refresh();
new LiveEvents({ onEvent: take, onGap: catchUp });
setInterval(() => grid.repaint(() => true), REDRAW);
refreshIn(Math.max(REFRESH, pause()));
