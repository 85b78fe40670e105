// Settings of monitoring: the switch, intervals and limits, breakers, and the dead-letter queue.

import { Refused, about, call, get, may, post } from "./api.js";
import { by, empty, fill, h, state, table, untrusted } from "./dom.js";
import { ago, brief, date } from "./format.js";
import { LiveEvents } from "./live.js";
import { ask, done, problem, run } from "./tell.js";

const ADMIN = may("admin");
const ORIGINS = { environment: "environment", file: "system.json", default: "default" };
/** What settings are about, by how their names begin. */
const SUBJECTS = [
  ["Intervals", /^adaptivePolling/], ["Slots", /^pollingMax/], ["Each type", /^(pve|pbs|pmg|http|tcp)Polling/], ["Backoff", /^pollingBackoff/],
  ["Circuit breakers", /^breaker/], ["Dead letters", /^deadLetter/], ["Further", /./],
];
/** How many rows a table has at the most. */
const ROWS = 500;
const selected = new Set();
let settings = [];
let deadLetters = [];

function setting(name) {
  return settings.find((it) => it.name === name);
}

async function loadSettings() {
  const answer = await get("/api/system/settings");
  settings = answer.settings;
  showSwitch();
  showSettings(answer.refusedEdits);
}

function showSwitch() {
  const { value, origin, environment } = setting("adaptivePollingEnabled");
  const toggle = by("adaptive");
  toggle.checked = value;
  toggle.disabled = !ADMIN || origin === "environment";
  if (origin === "environment") fill(by("adaptive-told"), h("p", { class: "hint" }, `Pinned by ${environment}; change it there.`));
}

by("adaptive").addEventListener("change", async (event) => {
  const wanted = event.target.checked;
  const set = (value) => post("/api/system/settings/update", { adaptivePollingEnabled: value });
  const undo = { label: "Undo", act: async () => { await set(!wanted); event.target.checked = !wanted; }, done: () => "Undone." };
  const answer = await run(by("adaptive-told"), () => set(wanted), () => done(wanted ? "Adaptive polling is on." : "Adaptive polling is off.", undo));
  if (!answer) event.target.checked = !wanted;
});

/** `pollingMaxInFlight` as people write it. */
function title(name) {
  const words = name.replace(/([A-Z])/g, " $1").toLowerCase().replace(/^adaptive polling (?!enabled)/, "").replace(/^(pve|pbs|pmg|http|tcp)/, (type) => type.toUpperCase());
  return words[0].toUpperCase() + words.slice(1);
}

/** One field: its value, where it came from, and what it is for. */
function field({ name, value, origin, environment, help, default: standard }) {
  const pinned = origin === "environment";
  const text = value === null ? "" : String(value);
  const input = typeof value === "boolean"
    ? h("input", { id: name, name, type: "checkbox", checked: value, disabled: pinned || !ADMIN })
    : h("input", { id: name, name, value: text, autocomplete: "off", disabled: pinned || !ADMIN, "aria-describedby": `${name}-hint` });
  input.dataset.before = typeof value === "boolean" ? String(value) : text;
  const from = h("span", { class: "origin", "data-origin": origin }, ORIGINS[origin]);
  const words = pinned ? ` Set by ${environment}.` : origin === "default" ? "" : ` Default ${standard ?? "none"}.`;
  return h("div", {}, h("label", { for: name }, title(name), " ", from), input, h("p", { class: "hint", id: `${name}-hint` }, help, words));
}

function showSettings(refusedEdits) {
  const left = settings.filter((it) => it.name !== "adaptivePollingEnabled");
  const groups = SUBJECTS.map(([words, pattern]) => {
    const own = left.filter((it) => pattern.test(it.name));
    for (const it of own) left.splice(left.indexOf(it), 1);
    return own.length > 0 && h("fieldset", {}, h("legend", {}, words), h("div", { class: "fields" }, ...own.map(field)));
  });
  const told = h("div", { id: "settings-told" });
  const refused = refusedEdits.map((edit) => h("div", { class: "problem" }, h("strong", {}, `An edit of ${edit.file} was refused; what was in force stays`), h("ul", {}, ...edit.errors.map((error) => h("li", {}, error)))));
  const save = ADMIN && h("div", { class: "row buttons" }, h("span", { class: "hint" }, "Takes effect at once, without a restart. An empty field takes the default."), h("button", { class: "primary", type: "submit" }, "Apply"));
  fill(by("settings"), ...refused, ...groups, told, save || null);
}

function changed(form) {
  const inputs = [...form.querySelectorAll("input:not(:disabled)")];
  const now = (input) => (input.type === "checkbox" ? String(input.checked) : input.value.trim());
  const typed = (input) => {
    if (input.type === "checkbox") return input.checked;
    if (input.value.trim() === "") return null;
    return typeof setting(input.name).default === "number" ? Number(input.value) : input.value.trim();
  };
  return Object.fromEntries(inputs.filter((input) => now(input) !== input.dataset.before).map((input) => [input.name, typed(input)]));
}

by("settings").addEventListener("submit", async (event) => {
  event.preventDefault();
  const patch = changed(event.target);
  const told = by("settings-told");
  for (const input of event.target.querySelectorAll("[aria-invalid]")) input.removeAttribute("aria-invalid");
  if (Object.keys(patch).length === 0) return fill(told, done("Nothing was changed."));
  const before = Object.fromEntries(Object.keys(patch).map((name) => [name, setting(name).origin === "default" ? null : setting(name).value]));
  try {
    settings = (await post("/api/system/settings/update", patch)).settings;
    showSwitch();
    showSettings([]);
    const undo = { label: "Undo", act: async () => { await post("/api/system/settings/update", before); await loadSettings(); }, done: () => "Undone." };
    fill(by("settings-told"), done(`Applied: ${Object.keys(patch).join(", ")}.`, undo));
  } catch (error) {
    fill(told, problem(error));
    if (error instanceof Refused) {
      for (const { at } of error.errors) document.getElementById(at.split(/[:\s]/).at(-1))?.setAttribute("aria-invalid", "true");
    }
  }
});

/** Every instance that fails, a page at a time. */
async function loadTroubles() {
  const troubles = [];
  let next = null;
  do {
    const answer = await get(`/api/monitoring/troubles${next === null ? "" : `?after=${encodeURIComponent(next)}`}`);
    troubles.push(...answer.instances);
    next = answer.next;
  } while (next !== null);
  deadLetters = troubles.filter((it) => it.deadLetter.present);
  showBreakers(troubles.filter((it) => it.breaker.state !== "unknown" && !it.deadLetter.present));
  for (const key of selected) if (!deadLetters.some((it) => it.key === key)) selected.delete(key);
  showDeadLetters();
}

const link = (key, name) => h("a", { href: `/instances/${encodeURIComponent(key)}`, dir: "auto" }, name ?? key);

const BREAKERS = { open: () => state("open", "open"), half_open: () => state("late", "half-open"), closed: () => state("failing", "closed, counting") };

function showBreakers(rows) {
  if (rows.length === 0) return fill(by("breakers"), empty("Every breaker is closed", deadLetters.length > 0 ? "Those of dead letters are told of above." : "No host is failing."));
  const reset = (key) => ADMIN && h("button", { type: "button", class: "small", onclick: () => resetBreaker(key) }, "Reset…");
  const cells = ({ key, displayName, breaker }) => [link(key, displayName), BREAKERS[breaker.state](), breaker.failureCount, breaker.retryAt ? ago(breaker.retryAt) : "–", reset(key) || ""];
  fill(by("breakers"), table("Circuit breakers", ["Instance", "State", { title: "Failures in a row", class: "number" }, "Next probe", { title: "", class: "narrow" }], rows.slice(0, ROWS).map(cells)), more(rows));
}

/** Further rows help nobody; a filter does. */
const more = (rows) => (rows.length > ROWS ? h("p", { class: "hint" }, `The first ${ROWS} of ${rows.length} are shown.`) : null);

async function resetBreaker(key) {
  await ask({
    title: `Reset the breaker of ${key}?`,
    what: "The breaker closes, its failures are forgotten and the host is polled at once. If it is still broken, the breaker opens again after as many failures as are set.",
    button: "Reset the breaker", reason: "required",
    act: async (reason) => {
      const answer = await post(about("/api/monitoring/breakers", key, "reset"), { reason });
      fill(by("breakers-told"), done(`The breaker of ${key} was ${answer.previousState} and is ${answer.newState}.`));
    },
  });
  await loadTroubles();
}

function shownDeadLetters() {
  const [text, reason] = [by("dlq-text").value.trim().toLowerCase(), by("dlq-reason").value];
  return deadLetters.filter((it) => (reason === "" || it.deadLetter.reason === reason) && (it.key.toLowerCase().includes(text) || it.displayName.toLowerCase().includes(text)));
}

function showDeadLetters() {
  const rows = shownDeadLetters();
  by("dlq-count").textContent = deadLetters.length === 0 ? "" : String(deadLetters.length);
  by("dlq-filters").hidden = deadLetters.length === 0;
  const words = { max_retry_attempts: "too many failures", permanent_failure: "permanent failure" };
  const box = (it) => h("input", { type: "checkbox", "aria-label": `Select ${it.key}`, checked: selected.has(it.key), onchange: (event) => choose([it.key], event.target.checked) });
  const button = (text, act, danger = "") => h("button", { type: "button", class: `small ${danger}`, onclick: act }, text);
  const actions = (it) => h("div", { class: "row" }, button("Retry…", () => retry([it.key])), button("Remove…", () => remove([it.key]), "danger"));
  const error = (it) => h("span", { class: "clamp", title: it.pollStatus.lastError?.message }, untrusted(brief(it.pollStatus.lastError?.message) ?? "–"));
  const cells = (it) => [
    ...(ADMIN ? [box(it)] : []), link(it.key, it.displayName), words[it.deadLetter.reason], error(it),
    date(it.deadLetter.firstAttempt), it.deadLetter.retryCount, it.deadLetter.nextRetry ? ago(it.deadLetter.nextRetry) : "under way", ...(ADMIN ? [actions(it)] : []),
  ];
  const columns = [...(ADMIN ? [{ title: selectAll(rows), class: "narrow" }] : []), "Instance", "Reason", { title: "Last error", class: "wide" }, { title: "Failing since", class: "narrow" }, { title: "Failed rechecks", class: "number" }, "Next recheck", ...(ADMIN ? [{ title: "", class: "narrow" }] : [])];
  if (deadLetters.length === 0) fill(by("dlq"), empty("The queue is empty", "No instance has failed for good."));
  else if (rows.length === 0) fill(by("dlq"), empty("No dead letter matches"));
  else fill(by("dlq"), table("Dead letters", columns, rows.slice(0, ROWS).map(cells)), more(rows));
  showActions();
}

function selectAll(rows) {
  const shown = rows.slice(0, ROWS).map((it) => it.key);
  return h("input", { type: "checkbox", "aria-label": "Select all that are shown", checked: shown.length > 0 && shown.every((key) => selected.has(key)), onchange: (event) => choose(shown, event.target.checked) });
}

function showActions() {
  if (!ADMIN || deadLetters.length === 0) return fill(by("dlq-actions"));
  const some = [...selected];
  fill(by("dlq-actions"),
    some.length > 0 && h("button", { type: "button", onclick: () => retry(some) }, `Retry selected (${some.length})…`),
    some.length > 0 && h("button", { type: "button", class: "danger", onclick: () => remove(some) }, `Remove selected (${some.length})…`),
    h("button", { type: "button", onclick: retryAll }, `Retry all (${deadLetters.length})…`));
}

function choose(keys, on) {
  for (const key of keys) on ? selected.add(key) : selected.delete(key);
  showDeadLetters();
}

/** One call a key, at the pace that the daemon's limit allows; what was refused is told by its key. */
async function each(keys, place, act) {
  const problems = [];
  for (const [index, key] of keys.entries()) {
    if (!place.isConnected) throw new Refused({ title: "Called off", detail: `${index} of ${keys.length} calls were made` });
    try {
      await patiently(act, key, (wait) => fill(place, h("p", { role: "status" }, `${index} of ${keys.length} done. The daemon takes a few calls a minute; the next follows in ${wait} s.`)));
    } catch (error) {
      problems.push({ at: key, detail: error.message });
    }
  }
  if (problems.length > 0) throw new Refused({ title: `${problems.length} of ${keys.length} calls were refused`, detail: "the others were carried out", errors: problems });
}

/** Does `act`, and does it again when the daemon says that it may be. */
async function patiently(act, key, tell) {
  for (;;) {
    try {
      return await act(key);
    } catch (error) {
      if (error.code !== "too_many_calls" || !error.retryAfter) throw error;
      tell(error.retryAfter);
      await new Promise((resolve) => setTimeout(resolve, Number(error.retryAfter) * 1_000));
    }
  }
}

/** A reason is sent only if there is one. */
const given = (reason) => (reason === "" ? {} : { reason });

async function retry(keys) {
  await ask({
    title: keys.length === 1 ? `Recheck ${keys[0]} now?` : `Recheck ${keys.length} dead letters now?`,
    what: "Each is polled once. A success takes it back to the live queue; a failure leaves it here and it waits for its next recheck.",
    button: "Recheck", reason: "optional",
    act: async (reason) => {
      if (keys.length === 1) {
        await post(about("/api/monitoring/dlq", keys[0], "retry"), given(reason));
        fill(by("dlq-told"), done(`${keys[0]} is rechecked.`));
      } else {
        const { tasksRetried } = await post("/api/monitoring/dlq/retry", { ...given(reason), keys });
        fill(by("dlq-told"), done(`${tasksRetried} of ${keys.length} rechecks are planned, spread out.`));
      }
      selected.clear();
    },
  });
  await loadTroubles();
}

async function retryAll() {
  await ask({
    title: `Recheck all ${deadLetters.length} dead letters?`,
    what: "Each is polled once, spread out so that the hosts are not flooded.",
    button: "Recheck all", reason: "optional",
    act: async (reason) => {
      const answer = await post("/api/monitoring/dlq/retry", given(reason));
      fill(by("dlq-told"), done(`${answer.tasksRetried} rechecks are planned.`));
    },
  });
  await loadTroubles();
}

async function remove(keys) {
  const undo = { label: "Undo: poll them again", act: () => each(keys, by("dlq-told"), (key) => post(about("/api/monitoring/instances", key, "resume"))), done: () => "They are polled again." };
  await ask({
    title: keys.length === 1 ? `Stop polling ${keys[0]}?` : `Stop polling ${keys.length} instances?`,
    what: "It leaves the dead-letter queue and is no longer polled until it is enabled, edited or added again. Its last reading stays.",
    button: "Stop polling", reason: "optional", danger: true,
    act: async (reason, place) => {
      await each(keys, place, (key) => call("DELETE", about("/api/monitoring/dlq", key), given(reason)));
      for (const key of keys) selected.delete(key);
      fill(by("dlq-told"), done(keys.length === 1 ? `${keys[0]} is no longer polled.` : `${keys.length} instances are no longer polled.`, undo));
    },
  });
  await loadTroubles();
}

for (const id of ["dlq-text", "dlq-reason"]) by(id).addEventListener("input", showDeadLetters);

let timer = 0;
function soon() {
  timer ||= setTimeout(() => { timer = 0; loadTroubles().catch(() => {}); }, 1_000);
}

const STIRRING = new Set(["breaker_moved", "dead_lettered", "recheck_failed", "revived", "poll_failed", "recovered", "paused", "resumed", "settings_applied"]);
new LiveEvents({
  onEvent: (name) => { if (STIRRING.has(name)) soon(); },
  onGap: () => Promise.all([loadSettings(), loadTroubles()]).catch((error) => fill(by("dlq-told"), problem(error))),
});
