// Names and error texts of the worst kind show as text, and the policy allows nothing inline.

import assert from "node:assert/strict";
import { mkdir, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { Daemon, isFilled, openBrowser, openPage, setUp } from "./harness.mjs";

const SCRIPT = "<script>window.hacked=1</script>";
const WORST = [
  SCRIPT,
  "<img src=x onerror=window.hacked=1>",
  "a\u202Egnp.exe\u2066",
  "\"'><svg onload=window.hacked=1>",
  "x".repeat(120),
];
/** As long as an answer's error may be, and longer: what is shown of it is the daemon's affair, how is the page's. */
const LONG = `${SCRIPT}\u202E${"w".repeat(10_000)}`;

let daemon, browser, page, server;

before(async () => {
  // A host that is no Proxmox host, and answers with markup.
  server = createServer((_, answer) =>
    answer.writeHead(404, { "Content-Type": "text/html" }).end(SCRIPT.repeat(400)),
  ).listen(0, "127.0.0.1");
  await new Promise((resolve) => server.on("listening", resolve));
  const { port } = server.address();
  const instances = WORST.map((displayName, number) => ({
    type: "http",
    name: `worst-${number}`,
    displayName,
    url: `http://127.0.0.1:${port}/${encodeURIComponent(displayName)}`,
    bodyContains: SCRIPT,
    interval: "5s",
  }));
  daemon = await Daemon.start({
    instances,
    system: { adaptivePollingBaseInterval: "1s", adaptivePollingMinInterval: "1s" },
  });
  browser = await openBrowser();
  page = await openPage(browser, daemon, { userAgent: LONG.replace("\u202E", "") });
  await setUp(page, daemon);
});

after(async () => {
  await browser?.close();
  await daemon?.stop();
  server?.close();
});

test("the policy allows nothing inline and nothing from elsewhere, on every page", async () => {
  for (const path of ["/", "/login", "/setup", "/settings/security", "/nowhere"]) {
    const answer = await page.request.get(path, { maxRedirects: 0 });
    const policy = answer.headers()["content-security-policy"] ?? "";
    assert.match(policy, /default-src 'none'/, path);
    assert.match(policy, /require-trusted-types-for 'script'/, path);
    assert.doesNotMatch(policy, /unsafe|https?:|\*/, path);
  }
});

async function nothingCameAlive(path) {
  assert.equal(await page.evaluate(() => window.hacked), undefined, path);
  assert.equal(await page.locator("main img:not(.emblem), main svg[onload], main script").count(), 0, path);
}

test("names with markup, quotes and marks of direction are text everywhere", async () => {
  for (const path of [
    "/",
    "/settings/instances",
    "/settings/monitoring",
    ...WORST.map((_, number) => `/instances/http%3A%3Aworst-${number}`),
  ]) {
    await page.goto(path);
    await isFilled(page);
    await nothingCameAlive(path);
  }
  await page.goto("/");
  for (const name of WORST) await page.locator(".tile .name").getByText(name, { exact: true }).waitFor();
});

test("a mark of direction turns round nothing but the name that has it", async () => {
  const tile = page.locator(".tile", { hasText: "gnp.exe" });
  for (const part of [".name", "bdi"]) {
    assert.match(await tile.locator(part).evaluate((it) => getComputedStyle(it).unicodeBidi), /isolate/, part);
  }
  await page.goto("/instances/http%3A%3Aworst-2");
  assert.match(await page.locator("h1").evaluate((it) => getComputedStyle(it).unicodeBidi), /isolate/);
});

test("the file of another tool is named as text, and what stands in it cannot be edited", async () => {
  const folder = join(daemon.folder, "instances.d");
  const file = "<img src=x onerror=window.hacked=1>.json";
  const instance = { type: "tcp", name: "elsewhere", host: "127.0.0.1", port: 9, enabled: false };
  await mkdir(folder);
  await writeFile(join(folder, file), JSON.stringify({ instances: [instance] }));
  const row = page.locator("tr", { hasText: "tcp::elsewhere" });
  for (let tries = 0; (await row.count()) === 0; tries += 1) {
    assert.ok(tries < 20, "the file is followed");
    await page.goto("/settings/instances");
    await isFilled(page);
  }
  await row.getByText(`instances.d/${file}`).waitFor();
  await row.getByText("read-only").waitFor();
  assert.deepEqual(await row.getByRole("button").allTextContents(), ["Test"]);
  const own = page.locator("tr", { hasText: "http::worst-0" });
  assert.deepEqual(await own.getByRole("button").allTextContents(), ["Test", "Edit…", "Remove…"]);
  // Links of other pages lead here with what is to be done.
  await page.goto("/settings/instances?edit=tcp%3A%3Aelsewhere");
  await page.locator("#told").getByText("which another tool keeps").waitFor();
  assert.equal(await page.getByRole("dialog").count(), 0);
  await nothingCameAlive("/settings/instances");
});

test("ten thousand characters of a stranger neither come alive nor break the page", async () => {
  await page.goto("/settings/security");
  await page.locator("#me .untrusted").getByText("wwwww").first().waitFor();
  await nothingCameAlive("/settings/security");
  // What is told of a call that failed may be as long.
  await page.route("**/api/audit/verify", (route) =>
    route.fulfill({
      status: 500,
      contentType: "application/problem+json",
      body: JSON.stringify({ title: SCRIPT, detail: LONG, errors: [{ at: SCRIPT, detail: LONG }] }),
    }),
  );
  await page.getByRole("button", { name: "Verify the chain" }).click();
  await page.getByRole("alert").getByText(SCRIPT).first().waitFor();
  await nothingCameAlive("/settings/security");
  const wider = await page.evaluate(() => document.documentElement.scrollWidth > window.innerWidth);
  assert.equal(wider, false, "a long text makes nobody scroll to the side");
});

test("no script failed and no policy was broken", () => {
  assert.deepEqual(page.troubles, []);
});
