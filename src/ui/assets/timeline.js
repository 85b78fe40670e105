// The polls of one instance over time: bars as high as they took long, bands where it was not polled normally, and below
// them the time to the next poll that was chosen after each.

import { h } from "./dom.js";
import { clock, span } from "./format.js";

const [WIDTH, HEIGHT, TOP] = [1000, 112, 8];
const INTERVALS = 40;

function svg(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  element.append(...children);
  return element;
}

/** Spans during which `began` had happened and `ended` not yet. */
function bands(entries, began, ended, end) {
  const found = [];
  let since = null;
  for (const entry of entries) {
    if (since === null && began(entry)) since = Date.parse(entry.at);
    else if (since !== null && ended(entry)) {
      found.push([since, Date.parse(entry.at)]);
      since = null;
    }
  }
  if (since !== null) found.push([since, end]);
  return found;
}

function bar(poll, x, longest) {
  const height = Math.max(8, (poll.tookMillis / longest) * (HEIGHT - TOP));
  const words = `${clock(poll.at)}: ${poll.category ?? "success"}, ${span(poll.tookMillis)}`;
  return svg(
    "rect",
    {
      class: poll.category === null ? "ok" : "bad",
      x: x(Date.parse(poll.at)) - 1.5,
      y: HEIGHT - height,
      width: 3,
      height,
    },
    svg("title", {}, words),
  );
}

/** A line that steps to each interval as it was chosen. */
function steps(polls, x, longest) {
  const y = (millis) => (INTERVALS - 4 - (millis / longest) * (INTERVALS - 8)).toFixed(1);
  const line = polls.map(
    (poll, index) =>
      `${index === 0 ? "M" : "H"}${x(Date.parse(poll.at)).toFixed(1)}${index === 0 ? `,${y(poll.nextMillis)}` : `V${y(poll.nextMillis)}`}`,
  );
  return svg("path", { class: "step", d: `${line.join("")}H${WIDTH}` });
}

/** @param {{ at: string, event: string, tookMillis?: number, category?: string | null, nextMillis?: number | null, to?: string }[]} entries the oldest first */
export function timeline(entries) {
  const polls = entries.filter((entry) => entry.event === "polled");
  const start = Date.parse(entries[0].at);
  const end = Math.max(Date.now(), start + 1);
  const x = (moment) => 6 + ((moment - start) / (end - start)) * (WIDTH - 12);
  const longest = Math.max(...polls.map((poll) => poll.tookMillis), 1);
  const failed = polls.filter((poll) => poll.category !== null).length;
  const planned = polls.filter((poll) => poll.nextMillis !== null);
  const longestPlan = Math.max(...planned.map((poll) => poll.nextMillis), 1);
  const summary = `${polls.length} polls since ${clock(start)}, ${failed === 0 ? "none" : failed} of them failed. The longest took ${span(longest)}.`;
  const until = (moment) => (moment === end ? WIDTH : x(moment));
  const band = (name, [from, to]) =>
    svg("rect", {
      class: name,
      x: x(from),
      y: 0,
      width: Math.max(2, until(to) - x(from)),
      height: HEIGHT,
    });
  const moved = (closed) => (entry) => entry.event === "breaker_moved" && closed === (entry.to === "closed");
  const drawing = svg(
    "svg",
    {
      class: "polls",
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
      preserveAspectRatio: "none",
      role: "img",
      "aria-label": summary,
    },
    ...bands(entries, moved(false), moved(true), end).map((it) => band("band-open", it)),
    ...bands(
      entries,
      (it) => it.event === "dead_lettered",
      (it) => it.event === "revived",
      end,
    ).map((it) => band("band-dead", it)),
    ...polls.map((poll) => bar(poll, x, longest)),
  );
  const intervals =
    planned.length > 0 &&
    svg(
      "svg",
      {
        class: "intervals",
        viewBox: `0 0 ${WIDTH} ${INTERVALS}`,
        preserveAspectRatio: "none",
        role: "img",
        "aria-label": `The time to the next poll, up to ${span(longestPlan)}`,
      },
      steps(planned, x, longestPlan),
    );
  const key = (name, words) => h("li", {}, h("i", { class: name, "aria-hidden": "true" }), words);
  return h(
    "div",
    { class: "timeline" },
    h("p", { class: "hint" }, summary),
    drawing,
    intervals,
    h("p", { class: "axis" }, h("span", {}, clock(start)), h("span", {}, "now")),
    h(
      "ul",
      { class: "legend" },
      key("ok", "success, as high as it took long"),
      key("bad", "failure"),
      key("band-open", "breaker not closed"),
      key("band-dead", "dead-lettered"),
      planned.length > 0 && key("step", `time to the next poll, up to ${span(longestPlan)}`),
    ),
  );
}
