// The whole way of an operator, as each role: set up, add, see it fail, reset, retry, switch, restore, and read who did it.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Daemon, isFilled, Lab, openBrowser, openPage, PASSWORD, setUp, signIn } from "./harness.mjs";

/** A breaker stays open for as long as somebody needs to find its button. */
const QUICK = {
  adaptivePollingBaseInterval: "1s",
  adaptivePollingMinInterval: "500ms",
  adaptivePollingMaxInterval: "4s",
  pollingBackoffInitial: "500ms",
  pollingBackoffMax: "1s",
  breakerOpenInitial: "2m",
  breakerOpenMax: "5m",
};
const REFUSE = { faulty: { kind: "refuse" } };

let lab, daemon, browser, page;

before(async () => {
  lab = await Lab.start();
  // Two that a host refuses, and so dead letters from the start.
  const locked = lab.instance("vault-locked");
  const instances = ["first", "second"].map((name) => ({ ...locked, name, displayName: `The ${name} vault` }));
  daemon = await Daemon.start({ system: QUICK, instances });
  browser = await openBrowser();
  page = await openPage(browser, daemon);
});

after(async () => {
  await browser?.close();
  await daemon?.stop();
  await lab?.stop();
});

const dialog = () => page.getByRole("dialog");
const deadLetter = (name) => page.locator("#dlq tbody tr", { hasText: name });

test("a stranger is sent to the setup of a daemon without users, and the token works once", async () => {
  await page.goto("/");
  await page.getByRole("heading", { name: "Welcome to Pulse" }).waitFor();
  await setUp(page, daemon);
  const again = await openPage(browser, daemon);
  await again.goto("/setup");
  await again.getByRole("heading", { name: "Sign in to Pulse" }).waitFor();
  await again.context().close();
});

test("a wrong password is told in words, and a right one leads to where one wanted to be", async () => {
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.getByRole("heading", { name: "Sign in to Pulse" }).waitFor();
  await page.goto("/settings/updates");
  await page.getByLabel("User").fill("ada");
  await page.getByLabel("Password").fill("a wrong sentence altogether");
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("alert").getByText("The credentials are wrong").waitFor();
  await page.getByLabel("Password").fill(PASSWORD);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("heading", { name: "Updates" }).waitFor();
});

test("an instance of the lab is added by the form: tested, its certificate pinned, and polled", async () => {
  const spec = lab.instance("branch-north");
  await page.goto("/settings/instances");
  await page.getByRole("button", { name: "Add an instance…" }).click();
  await page.getByLabel("Type").selectOption("pve");
  await page.getByLabel("Name", { exact: true }).fill("north");
  await page.getByLabel("Address").fill(spec.url);
  await page.getByLabel("Token", { exact: true }).fill("half a token");
  await page.getByRole("button", { name: "Test the connection" }).click();
  await dialog().getByText("The token is not whole").waitFor();
  await page.getByLabel("Token", { exact: true }).fill(`${spec.auth.tokenId}=${spec.auth.secret}`);
  await page.getByRole("button", { name: "Test the connection" }).click();
  await page.getByRole("button", { name: "Pin this certificate" }).click();
  await page.getByRole("button", { name: "Test the connection" }).click();
  await page.getByText("The connection works").waitFor();
  await page.getByRole("button", { name: "Add", exact: true }).click();
  await page.getByText("pve::north is added and polled from now on").waitFor();
  assert.equal(await page.getByText(spec.auth.secret).count(), 0, "a secret is never shown again");
  await page.goto("/");
  await page.locator('.tile[data-state="fresh"]', { hasText: "north" }).waitFor();
});

test("a host that breaks is seen to fail without a reload", async () => {
  await lab.behave("branch-north", REFUSE);
  await page.locator('.tile[data-state="open"]', { hasText: "north" }).waitFor();
  await page.locator("#events").getByText("Circuit breaker opened").first().waitFor();
});

test("a breaker is reset with a reason, and not without one", async () => {
  await page.goto("/instances/pve%3A%3Anorth");
  await page.locator(".state-line").getByText("Its breaker is open").waitFor();
  await page.getByRole("button", { name: "Reset the breaker…" }).click();
  await dialog().getByRole("button", { name: "Reset the breaker" }).click();
  assert.ok(await dialog().isVisible(), "a reset without a reason is not sent");
  await dialog().getByLabel("Reason").fill("cable replaced");
  await dialog().getByRole("button", { name: "Reset the breaker" }).click();
  await page.getByText("The breaker was open and is closed").waitFor();
});

test("settings that cannot be are refused where they were typed; others are in force at once", async () => {
  await page.goto("/settings/monitoring");
  await page.locator("#breakerOpenInitial").fill("9m");
  await page.getByRole("button", { name: "Apply" }).click();
  await page.locator("#settings-told").getByRole("alert").waitFor();
  assert.equal(
    await page.locator("#breakerOpenInitial").getAttribute("aria-invalid"),
    "true",
    "it is told where it was typed",
  );
  await page.locator("#breakerOpenInitial").fill("1s");
  await page.locator("#breakerOpenMax").fill("1s");
  await page.getByRole("button", { name: "Apply" }).click();
  await page.getByText("Applied: breakerOpenInitial, breakerOpenMax").waitFor();
});

test("what fails on is dead-lettered; retried from the table when it is mended, it comes back", async () => {
  await deadLetter("north").waitFor();
  await lab.behave("branch-north", "healthy");
  await deadLetter("north").getByRole("button", { name: "Retry…" }).click();
  await dialog().getByRole("button", { name: "Recheck" }).click();
  await page.getByText("pve::north is rechecked").waitFor();
  await deadLetter("north").waitFor({ state: "detached" });
  await page.goto("/");
  await page.locator('.tile[data-state="fresh"]', { hasText: "north" }).waitFor();
  await page.locator("#events").getByText("Back from the dead-letter queue").first().waitFor();
});

test("dead letters are selected and retried together, one is removed, and that is undone", async () => {
  await page.goto("/settings/monitoring");
  await page.getByLabel("Find a dead letter").fill("vault");
  await page.getByLabel("Select all that are shown").check();
  await page.getByRole("button", { name: "Retry selected (2)…" }).click();
  await dialog().getByRole("button", { name: "Recheck" }).click();
  await page.getByText("2 of 2 rechecks are planned, spread out").waitFor();
  await deadLetter("The second vault").getByRole("button", { name: "Remove…" }).click();
  await dialog().getByRole("button", { name: "Stop polling" }).click();
  await page.getByText("pbs::second is no longer polled").waitFor();
  await deadLetter("The second vault").waitFor({ state: "detached" });
  await page.getByRole("button", { name: "Undo: poll it again" }).click();
  await page.getByText("Polled again").waitFor();
});

test("the switch of adaptive polling acts at once, can be undone, and the table of dead letters does not need it", async () => {
  const toggle = page.getByRole("switch", { name: "Adaptive polling" });
  await toggle.uncheck();
  await page.getByText("Adaptive polling is off.").waitFor();
  await page.reload();
  await deadLetter("The first vault").waitFor();
  assert.equal(await toggle.isChecked(), false);
  await toggle.check();
  await page.getByText("Adaptive polling is on.").waitFor();
  await page.locator("#adaptive-told").getByRole("button", { name: "Undo" }).click();
  await page.getByText("Undone.").waitFor();
  assert.equal(await toggle.isChecked(), false);
  await toggle.check();
});

test("an earlier version of the settings is restored from the history", async () => {
  await page.goto("/settings/updates");
  const rows = page.locator("#history tbody tr");
  const changed = rows.filter({ hasText: "breakerOpenInitial" });
  await changed.getByRole("button", { name: "What changed" }).click();
  await dialog().getByText("2m").first().waitFor();
  await dialog().getByRole("button", { name: "Close" }).click();
  const version = Number.parseInt(await changed.locator("td").first().innerText(), 10);
  await rows
    .filter({ has: page.locator("td:first-child", { hasText: new RegExp(`^${version - 1}$`) }) })
    .getByRole("button", { name: "Restore…" })
    .click();
  await page.getByLabel("Reason").fill("one second is too short");
  await dialog().getByRole("button", { name: "Restore" }).click();
  await page.getByText("Restored, as version").waitFor();
  await page.goto("/settings/monitoring");
  await page.locator("#breakerOpenInitial").waitFor();
  assert.equal(await page.locator("#breakerOpenInitial").inputValue(), "2m");
});

test("the audit log has what was done, by whom and why, and its chain verifies", async () => {
  await page.goto("/settings/security");
  const entry = page.locator("#audit tbody tr", { hasText: "breaker.reset" }).first();
  await entry.waitFor();
  assert.match(await entry.innerText(), /user:ada.*10\.0\.0\.\d+.*pve::north.*cable replaced.*done/s);
  await page.locator("#audit tbody tr", { hasText: "config.rollback" }).getByText("one second is too short").waitFor();
  await page.getByRole("button", { name: "Verify the chain" }).click();
  await page.getByText(/All \d+ entries, up to number \d+, are as they were written/).waitFor();
});

test("a token is made, shown once, and revoked", async () => {
  await page.getByRole("button", { name: "Make a token…" }).click();
  await dialog().getByLabel("What it is for").fill("dashboards");
  await dialog().getByRole("button", { name: "Make it" }).click();
  const token = await page.locator("#tokens-told code").innerText();
  const version = () => fetch(`${daemon.url}/api/version`, { headers: { "X-API-Token": token } });
  assert.equal((await version()).status, 200);
  await page.locator("#tokens tr", { hasText: "dashboards" }).getByRole("button", { name: "Revoke…" }).click();
  await dialog().getByRole("button", { name: "Revoke" }).click();
  await page.getByText("dashboards is revoked").waitFor();
  assert.equal((await version()).status, 401);
});

const EVERY_PAGE = [
  "/",
  "/instances/pve%3A%3Anorth",
  "/instances/pbs%3A%3Afirst",
  "/settings/monitoring",
  "/settings/instances",
  "/settings/updates",
  "/settings/security",
];
const CHANGES = /Reset|Retry|Remove|Pause|Apply|Restore|Add|Poll now|Revoke|Verify|Edit|Role|Make|Cluster/;

for (const [role, forbidden] of [
  ["viewer", new RegExp(`${CHANGES.source}|Test`)],
  ["operator", CHANGES],
]) {
  test(`a ${role} sees everything that they may, and no button that would be refused`, async () => {
    await page.goto("/settings/security");
    await page.getByRole("button", { name: "Add a user…" }).click();
    await dialog().getByLabel("Name").fill(`the-${role}`);
    await dialog().getByLabel("Role").selectOption(role);
    await dialog().getByLabel("Password").fill(PASSWORD);
    await dialog().getByRole("button", { name: "Add" }).click();
    await page.locator("#users").getByText(`the-${role}`).waitFor();
    const theirs = await openPage(browser, daemon);
    const refused = [];
    theirs.on("response", (answer) => {
      if (answer.status() >= 400) refused.push(`${answer.status()} ${answer.url()}`);
    });
    await signIn(theirs, `the-${role}`);
    for (const path of EVERY_PAGE) {
      await theirs.goto(path, { waitUntil: "load" });
      await isFilled(theirs);
      const buttons = [
        ...(await theirs.getByRole("button").allInnerTexts()),
        ...(await theirs.locator("a.button").allInnerTexts()),
      ];
      assert.deepEqual(
        buttons.filter((words) => forbidden.test(words)),
        [],
        `${role} at ${path}`,
      );
      const enabled = theirs.locator("main input:enabled:not([type=search]), main select:enabled:not(#dlq-reason)");
      assert.equal(await enabled.count(), 0, `${role} at ${path}: nothing can be typed that could not be sent`);
    }
    if (role === "operator") {
      await theirs.goto("/instances/pve%3A%3Anorth");
      await theirs.getByRole("button", { name: "Test the connection" }).click();
      await theirs.getByText("The connection works").waitFor();
    }
    assert.deepEqual(refused, [], `${role} makes no call that is refused`);
    assert.deepEqual(theirs.troubles, []);
    await theirs.context().close();
  });
}

test("a lost connection is told, and what was missed is caught up with", async () => {
  await page.goto("/");
  await page.locator('#connection[data-state="live"]').waitFor();
  await page.context().setOffline(true);
  await page.getByRole("alert").getByText("The connection to the daemon is lost").waitFor();
  await daemon.pulse("breaker", "reset", "pve::north", "--reason", "nobody sees it");
  await lab.behave("branch-north", REFUSE);
  await page.context().setOffline(false);
  await page.locator('#connection[data-state="live"]').waitFor();
  await page.locator("#offline").waitFor({ state: "hidden" });
  await page.locator('.tile[data-state="failing"], .tile[data-state="open"]', { hasText: "north" }).waitFor();
});

test("a session that has ended leads to signing in, and back", async () => {
  await page.goto("/settings/monitoring");
  await page.locator('#connection[data-state="live"]').waitFor();
  await page.context().clearCookies();
  await page.getByRole("switch").click();
  await page.getByRole("heading", { name: "Sign in to Pulse" }).waitFor();
  assert.equal(new URL(page.url()).searchParams.get("next"), "/settings/monitoring");
});

test("no script failed and no policy was broken on the whole way", () => {
  assert.deepEqual(
    page.troubles.filter((it) => !/ERR_INTERNET_DISCONNECTED/.test(it)),
    [],
  );
});
