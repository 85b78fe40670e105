// How soon a large fleet is on the screen, whether a thousand changes a second keep the frames flowing, and whether ten
// thousand tiles scroll.

import assert from "node:assert/strict";
import { createServer } from "node:net";
import { after, before, test } from "node:test";
import { Daemon, openBrowser, openPage, setUp } from "./harness.mjs";

/** The longest that a frame may take, in milliseconds. */
const BUDGET = 50;
/** From which share of time to processor on others have the processor too. */
const BUSY = 1.25;
let server, browser;

before(async () => {
  server = createServer((socket) => socket.destroy()).listen(0, "127.0.0.1");
  await new Promise((resolve) => server.on("listening", resolve));
  browser = await openBrowser();
});

after(async () => {
  await browser?.close();
  server?.close();
});

/** A daemon that watches so many endpoints which are all up. */
function watching(count) {
  const { port } = server.address();
  const instances = Array.from({ length: count }, (_, index) => ({
    type: "tcp",
    name: `host-${String(index).padStart(5, "0")}`,
    host: "127.0.0.1",
    port,
    interval: "1h",
  }));
  return Daemon.start({ instances, system: { pollingMaxInFlightPerHost: 256 } });
}

/**
 * What `act` gives, and how the page's thread fared while it ran: how long frames took, and what its longest task needed of
 * the processor, in milliseconds. Where the machine is busy with other things, the first tells of those and not of the page.
 */
async function watched(page, act, argument) {
  await page.evaluate(async () => {
    const gaps = [];
    let last = await new Promise(requestAnimationFrame);
    const watch = (now) => {
      gaps.push(now - last);
      last = now;
      window.watched = requestAnimationFrame(watch);
    };
    window.watched = requestAnimationFrame(watch);
    window.gaps = gaps;
  });
  await browser.startTracing(page, { categories: ["devtools.timeline", "disabled-by-default-devtools.timeline"] });
  const result = await page.evaluate(act, argument);
  const { traceEvents } = JSON.parse((await browser.stopTracing()).toString());
  const gaps = await page.evaluate(() => {
    cancelAnimationFrame(window.watched);
    return window.gaps;
  });
  const place = ({ pid, tid }) => `${pid} ${tid}`;
  const threads = new Set(
    traceEvents.filter((it) => it.name === "thread_name" && it.args.name === "CrRendererMain").map(place),
  );
  const tasks = traceEvents.filter((it) => it.name === "RunTask" && it.tdur !== undefined && threads.has(place(it)));
  assert.ok(tasks.length > 100, "the trace has the page's tasks");
  const sum = (name) => tasks.reduce((all, it) => all + it[name], 0);
  return {
    result,
    frames: gaps.length,
    frame: Math.max(...gaps),
    task: Math.max(...tasks.map((it) => it.tdur)) / 1_000,
    isBusy: sum("dur") > BUSY * sum("tdur"),
  };
}

const told = ({ frames, frame, task, isBusy }) =>
  `${frames} frames, the longest ${frame.toFixed(0)} ms, its longest task ${task.toFixed(0)} ms of the processor${isBusy ? " (the machine is busy)" : ""}`;

function judge({ frame, task, isBusy }, when) {
  assert.ok(task <= BUDGET, `a task took ${task} ms of the processor while ${when}`);
  if (!isBusy) assert.ok(frame <= BUDGET, `a frame took ${frame} ms while ${when}`);
}

for (const count of [1_000, 10_000]) {
  test(
    `${count} instances are on the screen soon, take a thousand changes a second and scroll smoothly`,
    { timeout: 90_000 },
    async (context) => {
      const daemon = await watching(count);
      context.after(() => daemon.stop());
      const page = await openPage(browser, daemon);
      await playEvents(page);
      await setUp(page, daemon);
      const fresh = () => page.locator("#count-fresh b").innerText();
      for (; (await fresh()) !== String(count); await page.waitForTimeout(1_000)) await page.goto("/");

      await page.goto("/");
      await page.locator(".tile").first().waitFor();
      const paint = await page.evaluate(firstPaint);
      await page.locator("#grid .tile").first().waitFor();
      assert.equal(await fresh(), String(count));
      const tiles = await page.locator("#grid .tile").count();

      const changed = await watched(page, change, count);
      const scrolled = await watched(page, scroll);
      await page.locator("#grid .tile", { hasText: `host-${String(count - 1).padStart(5, "0")}` }).waitFor();
      context.diagnostic(
        `${count} instances: first paint ${paint.toFixed(0)} ms, ${tiles} tiles exist; ${changed.result} changes in 5 s: ${told(changed)}; to the end in 2 s: ${told(scrolled)}`,
      );
      assert.ok(tiles < 200, `${tiles} tiles exist`);
      assert.ok(changed.result >= 4_900, `${changed.result} changes`);
      assert.ok(paint < 1_000, `the first paint took ${paint} ms`);
      judge(changed, "instances changed");
      judge(scrolled, "the page scrolled");
      assert.deepEqual(page.troubles, []);
    },
  );
}

/** When the first of the page was on the screen, in milliseconds: it can stand in the document for a while before it is. */
function firstPaint() {
  return new Promise((resolve) =>
    new PerformanceObserver((list) => {
      const [paint] = list.getEntriesByName("first-contentful-paint");
      if (paint) resolve(paint.startTime);
    }).observe({ type: "paint", buffered: true }),
  );
}

/** The stream is played from within, so that what is measured is the page and not this machine's network. */
function playEvents(page) {
  return page.addInitScript(() => {
    window.EventSource = class extends EventTarget {
      readyState = 1;
      constructor() {
        super();
        window.stream = this;
        setTimeout(() => this.onopen?.(), 0);
      }
      close() {}
    };
  });
}

/** A thousand changes a second for five seconds: each instance fails, and recovers a round later. */
async function change(count) {
  const happen = (name, key, more) =>
    window.stream.dispatchEvent(
      new MessageEvent(name, { data: JSON.stringify({ at: new Date().toISOString(), key, ...more }) }),
    );
  const begun = performance.now();
  let changes = 0;
  while (performance.now() - begun < 5_000) {
    for (const due = performance.now() - begun; changes < due; changes += 1) {
      const key = `tcp::host-${String(changes % count).padStart(5, "0")}`;
      if (Math.floor(changes / count) % 2) happen("recovered", key, { failures: 1 });
      else happen("poll_failed", key, { failures: 1, category: "timeout", message: "no answer came" });
    }
    await new Promise((resolve) => setTimeout(resolve, 4));
  }
  return changes;
}

/** To the end of the page in two seconds. */
async function scroll() {
  const end = document.documentElement.scrollHeight - window.innerHeight;
  const begun = performance.now();
  for (let now = begun; now - begun < 2_000; now = await new Promise(requestAnimationFrame))
    window.scrollTo(0, (end * (now - begun)) / 2_000);
  window.scrollTo(0, end);
  await new Promise(requestAnimationFrame);
}
