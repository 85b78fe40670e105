// Every page, in both themes, by axe's rules; and a picture of each for the documentation.

import assert from "node:assert/strict";
import { mkdir, readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { Daemon, isFilled, Lab, openBrowser, openPage, ROOT, setUp, signIn } from "./harness.mjs";

const AXE = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];
/** Where pictures go, from the project's root; none are made without it. */
const PICTURES = process.env.PULSE_SCREENSHOTS;
const PAGES = {
  overview: "/",
  instance: "/instances/pve%3A%3Aatlas",
  "dead-letter": "/instances/pve%3A%3Aattic",
  monitoring: "/settings/monitoring",
  instances: "/settings/instances",
  updates: "/settings/updates",
  security: "/settings/security",
};
/** What is opened by a button: the page, the button, and the dialog's picture. */
const DIALOGS = [
  ["/settings/instances", "Add an instance…", "add"],
  ["/settings/instances", "Cluster nodes…", null],
  ["/settings/monitoring", "Retry all", null],
  ["/settings/security", "Add a user…", null],
  ["/settings/updates", "What changed", null],
];
const SCHEMES = ["light", "dark"];

let lab, daemon, browser;

before(async () => {
  lab = await Lab.start();
  const system = {
    adaptivePollingBaseInterval: "2s",
    adaptivePollingMinInterval: "1s",
    pollingBackoffInitial: "300ms",
    pollingBackoffMax: "1s",
    breakerOpenInitial: "300ms",
    breakerOpenMax: "1s",
    pvePollingTimeout: "1500ms",
  };
  daemon = await Daemon.start({ instances: lab.instances, system });
  browser = await openBrowser();
});

after(async () => {
  await browser?.close();
  await daemon?.stop();
  await lab?.stop();
});

async function check(page, name) {
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(
    (values) => window.axe.run(document, { runOnly: { type: "tag", values } }),
    RULES,
  );
  const told = violations.map(
    ({ id, nodes }) => `${id}: ${nodes.map(({ target, failureSummary }) => `${target} ${failureSummary}`).join("; ")}`,
  );
  assert.deepEqual(told, [], name);
}

async function picture(page, name) {
  if (!PICTURES) return;
  await mkdir(join(ROOT, PICTURES), { recursive: true });
  await page.screenshot({ path: join(ROOT, PICTURES, `${name}.png`) });
}

/** One page in both themes. */
async function inBoth(page, name, shown = name) {
  for (const colorScheme of SCHEMES) {
    await page.emulateMedia({ colorScheme });
    await check(page, `${name}, ${colorScheme}`);
    if (shown) await picture(page, `${shown}-${colorScheme}`);
  }
}

test("the ways in have no violation", async () => {
  const page = await openPage(browser, daemon);
  await page.goto("/login");
  await page.getByRole("heading", { name: "Welcome to Pulse" }).waitFor();
  await inBoth(page, "setup");
  await setUp(page, daemon);
  const stranger = await openPage(browser, daemon);
  await stranger.goto("/login");
  await inBoth(stranger, "sign-in");
  await stranger.getByLabel("User").fill("ada");
  await stranger.getByLabel("Password").fill("a wrong sentence altogether");
  await stranger.getByRole("button", { name: "Sign in" }).click();
  await stranger.getByRole("alert").waitFor();
  await inBoth(stranger, "a refused sign-in", null);
  assert.deepEqual([...page.troubles, ...stranger.troubles], []);
  await page.context().close();
  await stranger.context().close();
});

test("no page has a violation, nor what its buttons open", async () => {
  const page = await openPage(browser, daemon);
  await signIn(page, "ada");
  await page.locator('.tile[data-state="dead_lettered"]').nth(2).waitFor();
  for (const [name, path] of Object.entries(PAGES)) {
    await page.goto(path);
    await isFilled(page);
    await inBoth(page, name);
  }
  for (const [path, button, name] of DIALOGS) {
    await page.goto(path);
    await isFilled(page);
    await page.getByRole("button", { name: button }).first().click();
    await page.getByRole("dialog").waitFor();
    await inBoth(page, `${button} at ${path}`, name);
  }
  await page.goto("/instances/pve%3A%3Anobody");
  await inBoth(page, "nothing there", null);
  assert.deepEqual(page.troubles, []);
  await page.context().close();
});

test("a phone and a wall show the same, and nobody scrolls to the side", async () => {
  const page = await openPage(browser, daemon, { viewport: { width: 390, height: 780 } });
  await signIn(page, "ada");
  for (const [name, path] of Object.entries(PAGES)) {
    await page.goto(path);
    await isFilled(page);
    await check(page, `${name} on a phone`);
    const wider = await page.evaluate(() => document.documentElement.scrollWidth > window.innerWidth);
    assert.equal(wider, false, `${name} on a phone`);
    if (name === "overview") await inBoth(page, name, "phone");
  }
  await page.setViewportSize({ width: 3840, height: 2160 });
  await page.goto("/");
  await isFilled(page);
  await check(page, "a wall");
  await page.context().close();
});

test("everything can be reached and done with the keyboard", async () => {
  const page = await openPage(browser, daemon);
  await signIn(page, "ada");
  await isFilled(page);
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "Skip to the content");
  await page.locator("#grid .tile").first().focus();
  await page.keyboard.press("End");
  const last = await page.evaluate(() => document.activeElement.closest("li").getAttribute("aria-posinset"));
  assert.equal(last, String(lab.instances.length));
  await page.keyboard.press("Home");
  const first = await page.evaluate(() => document.activeElement.href);
  await page.keyboard.press("Enter");
  await page.waitForURL(first);
  await page.getByRole("button", { name: "Pause…" }).focus();
  await page.keyboard.press("Enter");
  await page.getByRole("dialog").waitFor();
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "detached" });
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "Pause…", "the focus is where it was");
  await page.context().close();
});
