// What the tests share: a lab of emulated hosts, a daemon on an empty folder that polls them, and a browser.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

export const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const BUILD = join(ROOT, "target", process.env.PULSE_PROFILE ?? "debug");
const BROWSER = process.env.CHROMIUM ?? "/usr/bin/chromium";
const QUIET = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];
export const PASSWORD = "a long sentence nobody guesses";

/** A program that runs until `stop`, and whose output lines can be waited for. */
class Program {
  constructor(path, args, env = {}) {
    this.lines = [];
    this.waiting = [];
    this.process = spawn(path, args, { cwd: ROOT, env: { ...process.env, ...env }, stdio: ["ignore", "pipe", "pipe"] });
    for (const stream of [this.process.stdout, this.process.stderr]) {
      createInterface({ input: stream }).on("line", (line) => {
        this.lines.push(line);
        this.waiting = this.waiting.filter(
          ({ pattern, found }) => !(pattern.test(line) && (found(line.match(pattern)), true)),
        );
      });
    }
    this.process.on("exit", (code) => {
      for (const { pattern, failed } of this.waiting)
        failed(new Error(`${path} ended with ${code} before ${pattern}:\n${this.lines.slice(-20).join("\n")}`));
    });
  }

  /** The match of the first line that fits, printed already or yet to come. */
  line(pattern) {
    for (const line of this.lines) if (pattern.test(line)) return Promise.resolve(line.match(pattern));
    return new Promise((found, failed) => this.waiting.push({ pattern, found, failed }));
  }

  async stop() {
    if (this.process.exitCode !== null) return;
    const ended = once(this.process, "exit");
    this.process.kill("SIGTERM");
    await ended;
  }
}

/** Emulated hosts, steered from outside. */
export class Lab {
  static async start(plan = "demo", more = []) {
    const lab = new Lab();
    lab.folder = await mkdtemp(join(tmpdir(), "pulse-lab-"));
    const instances = join(lab.folder, "instances.json");
    lab.program = new Program(join(BUILD, "examples/lab"), [
      "--plan",
      plan,
      "--control",
      "127.0.0.1:0",
      "--instances-out",
      instances,
      ...more,
    ]);
    [, lab.control] = await lab.program.line(/^control port: (.*)$/);
    await lab.program.line(/hosts are up/);
    lab.instances = JSON.parse(await readFile(instances, "utf8")).instances;
    return lab;
  }

  instance(name) {
    return this.instances.find((it) => it.name === name);
  }

  async behave(name, behaviour) {
    const answer = await fetch(`${this.control}/hosts/${name}/behaviour`, {
      method: "PUT",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(behaviour),
    });
    if (!answer.ok) throw new Error(`the lab refused: ${answer.status} ${await answer.text()}`);
  }

  async stop() {
    await this.program.stop();
    await rm(this.folder, { recursive: true });
  }
}

/** A daemon on a folder of its own. */
export class Daemon {
  static async start({ system = {}, instances = [] } = {}) {
    const daemon = new Daemon();
    daemon.folder = await mkdtemp(join(tmpdir(), "pulse-browser-"));
    await writeFile(join(daemon.folder, "system.json"), JSON.stringify(system));
    await writeFile(join(daemon.folder, "instances.json"), JSON.stringify({ instances }), { mode: 0o600 });
    // Each page of a test is a person at an address of their own, as far as the daemon believes its proxy.
    const args = [
      "serve",
      "--data-dir",
      daemon.folder,
      "--listen",
      "127.0.0.1:0",
      "--metrics-listen",
      "127.0.0.1:0",
      "--trusted-proxy",
      "127.0.0.1",
    ];
    daemon.program = new Program(join(BUILD, "pulse"), args, { PULSE_LOG: "info" });
    const [, address] = await daemon.program.line(/api=(127\.0\.0\.1:\d+)/);
    daemon.url = `http://${address}`;
    [, daemon.setupToken] = await daemon.program.line(/^\s*(setup_\S+)$/);
    return daemon;
  }

  /** Runs the command line against this daemon. */
  async pulse(...args) {
    const run = spawn(join(BUILD, "pulse"), [...args, "--data-dir", this.folder], {
      stdio: ["ignore", "pipe", "pipe"],
    });
    let text = "";
    for (const stream of [run.stdout, run.stderr])
      stream.on("data", (data) => {
        text += data;
      });
    const [code] = await once(run, "exit");
    return { code, text };
  }

  async stop() {
    await this.program.stop();
    await rm(this.folder, { recursive: true });
  }
}

/** @returns {Promise<import("playwright-core").Browser>} */
export function openBrowser() {
  return chromium.launch({ executablePath: BROWSER, args: QUIET });
}

let people = 0;

/** A page of its own session and address, that fails the test when a script of it fails or a policy is broken. */
export async function openPage(browser, daemon, options = {}) {
  const context = await browser.newContext({
    baseURL: daemon.url,
    viewport: { width: 1280, height: 800 },
    reducedMotion: "reduce",
    extraHTTPHeaders: { "X-Forwarded-For": `10.0.0.${(people += 1)}` },
    ...options,
  });
  const page = await context.newPage();
  page.troubles = [];
  page.on("pageerror", (error) => page.troubles.push(`${error}`));
  page.on("console", (message) => {
    if (message.type() === "error" && !/Failed to load resource/.test(message.text()))
      page.troubles.push(message.text());
  });
  page.setDefaultTimeout(20_000);
  return page;
}

/** Makes the first administrator by the page, and is signed in as them. */
export async function setUp(page, daemon, name = "ada") {
  await page.goto("/setup");
  await page.getByLabel("Setup token").fill(daemon.setupToken);
  await page.getByLabel("User").fill(name);
  await page.getByLabel("Password", { exact: true }).fill(PASSWORD);
  await page.getByLabel("Password, once more").fill(PASSWORD);
  await page.getByRole("button", { name: "Make the administrator" }).click();
  await page.getByRole("heading", { name: "Overview" }).waitFor();
}

export async function signIn(page, name) {
  await page.goto("/login");
  await page.getByLabel("User").fill(name);
  await page.getByLabel("Password").fill(PASSWORD);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("heading", { name: "Overview" }).waitFor();
}

/** Waits until a page shows what it has to ask for. */
export async function isFilled(page) {
  await page.locator(".loading:empty >> visible=true").first().waitFor({ state: "detached" });
  await page.locator("#first-paint").waitFor({ state: "detached" });
}
