// The page of the instances: the nodes of a cluster added by its dialog, and files that other tools keep.

import assert from "node:assert/strict";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { Daemon, Lab, openBrowser, openPage, setUp } from "./harness.mjs";

/** A port that no other run at the same time has its nodes at. */
const PORT = 30_000 + (process.pid % 10_000);

let lab, daemon, browser, page;

before(async () => {
  lab = await Lab.start("demo", ["--cluster-port", `${PORT}`]);
  const { members, ...first } = lab.instance("atlas");
  assert.equal(members.length, 2, "the cluster has three nodes");
  const system = { adaptivePollingBaseInterval: "1s", adaptivePollingMinInterval: "500ms" };
  daemon = await Daemon.start({ system, instances: [{ ...first, name: "atlas-1", displayName: "Atlas 1" }] });
  browser = await openBrowser();
  page = await openPage(browser, daemon);
  await setUp(page, daemon);
});

after(async () => {
  await browser?.close();
  await daemon?.stop();
  await lab?.stop();
});

const dialog = () => page.getByRole("dialog");
const row = (key) => page.locator("#list tbody tr", { has: page.getByText(key, { exact: true }) });

test("the nodes of a cluster are chosen in its dialog, added with what it trusts, and polled", async () => {
  await page.goto("/settings/instances");
  await row("pve::atlas-1").getByRole("button", { name: "Cluster nodes…" }).click();
  await dialog().getByText("watched as pve::atlas-1").waitFor();
  const box = (name) => dialog().getByRole("checkbox", { name });
  assert.equal(await box("atlas-1").isDisabled(), true, "who is watched cannot be added again");
  // The cluster itself tells these certificates, so that they are chosen from the start.
  assert.deepEqual([await box("atlas-2").isChecked(), await box("atlas-3").isChecked()], [true, true]);
  const { fingerprint } = lab.instance("atlas").tls;
  assert.equal(await dialog().getByText(fingerprint).count(), 2);
  await dialog().getByText("Its certificate, as the cluster tells it").first().waitFor();
  await box("atlas-3").uncheck();
  await dialog().getByRole("button", { name: "Add the chosen" }).click();
  await dialog().waitFor({ state: "detached" });
  await page.locator("#told").getByText("pve::atlas-2").waitFor();
  await row("pve::atlas-2").getByText("instances.json").waitFor();
  assert.equal(await row("pve::atlas-3").count(), 0, "who was not chosen is not added");

  await row("pve::atlas-2").getByRole("button", { name: "Cluster nodes…" }).click();
  await dialog().getByText("watched as pve::atlas-2").waitFor();
  await dialog().getByRole("button", { name: "Add the chosen" }).click();
  await row("pve::atlas-3").waitFor();
  await row("pve::atlas-1").getByRole("button", { name: "Cluster nodes…" }).click();
  await dialog().getByText("There is no node to add").waitFor();
  assert.equal(await dialog().getByRole("button", { name: "Add the chosen" }).isDisabled(), true);
  await dialog().getByRole("button", { name: "Cancel" }).click();
  await page.goto("/");
  for (const name of ["atlas-2", "atlas-3"])
    await page.locator('.tile[data-state="fresh"]', { hasText: name }).waitFor();
  await page.goto("/settings/security");
  await page.locator("#audit tbody tr", { hasText: "node.add_cluster" }).first().waitFor();
});

test("a cluster that cannot be asked is told in the dialog, and nothing is added", async () => {
  await lab.behave("atlas", { faulty: { kind: "refuse" } });
  await page.goto("/settings/instances");
  await row("pve::atlas-1").getByRole("button", { name: "Cluster nodes…" }).click();
  await dialog().getByRole("alert").waitFor();
  assert.equal(await dialog().getByRole("checkbox").count(), 0);
  await dialog().getByRole("button", { name: "Cancel" }).click();
  await lab.behave("atlas", "healthy");
});

test("what another tool keeps is read-only, and its file is named when it is broken", async () => {
  const folder = join(daemon.folder, "instances.d");
  await mkdir(folder);
  const tcp = { type: "tcp", name: "db", host: "127.0.0.1", port: 9, enabled: false };
  const write = (text) => writeFile(join(folder, "racks.json"), text, { mode: 0o600 });
  const shown = async (locator) => {
    await page.goto("/settings/instances");
    await row("pve::atlas-1").waitFor();
    return (await locator.count()) > 0;
  };
  const until = async (locator) => {
    for (let tries = 0; !(await shown(locator)); tries += 1) {
      assert.ok(tries < 50, `${locator} is never shown`);
      await page.waitForTimeout(200);
    }
  };
  await write(JSON.stringify({ instances: [tcp] }));
  await until(row("tcp::db"));
  await row("tcp::db").getByText("instances.d/racks.json").waitFor();
  assert.equal(await row("tcp::db").getByRole("button", { name: "Edit…" }).count(), 0);
  await write("{");
  await until(page.locator("#refused").getByText("racks.json was refused; what was in force stays"));
  await page.locator("#refused").getByText("line 1, column 1").waitFor();
  await row("tcp::db").waitFor();
  await page.goto("/settings/monitoring");
  await page.locator("#settings").getByText("racks.json was refused; what was in force stays").waitFor();
  assert.deepEqual(page.troubles, []);
});
