// The dead-letter queue: filter, select, retry and remove.

import { Refused, about, call, given, may, post } from "./api.js";
import { by, empty, fill, h, instanceLink, table, tooMany, untrusted } from "./dom.js";
import { ago, brief, date } from "./format.js";
import { ask, done } from "./tell.js";

const ADMIN = may("admin");
/** How many rows the table has at the most. */
const ROWS = 500;
/** The keys of those that are chosen. */
const selected = new Set();
let deadLetters = [];
let reload = async () => {};

/** Shows these; `again` asks for them anew. */
export function showDeadLetters(found, again) {
  deadLetters = found;
  reload = again;
  for (const key of selected) if (!deadLetters.some((it) => it.key === key)) selected.delete(key);
  draw();
}

function shownDeadLetters() {
  const [text, reason] = [by("dlq-text").value.trim().toLowerCase(), by("dlq-reason").value];
  return deadLetters.filter(
    (it) =>
      (reason === "" || it.deadLetter.reason === reason) &&
      (it.key.toLowerCase().includes(text) || it.displayName.toLowerCase().includes(text)),
  );
}

function draw() {
  const rows = shownDeadLetters();
  by("dlq-count").textContent = deadLetters.length === 0 ? "" : String(deadLetters.length);
  by("dlq-filters").hidden = deadLetters.length === 0;
  const words = {
    max_retry_attempts: "too many failures",
    permanent_failure: "permanent failure",
  };
  const box = (it) =>
    h("input", {
      type: "checkbox",
      "aria-label": `Select ${it.key}`,
      checked: selected.has(it.key),
      onchange: (event) => choose([it.key], event.target.checked),
    });
  const button = (text, act, danger = "") =>
    h("button", { type: "button", class: `small ${danger}`, onclick: act }, text);
  const actions = (it) =>
    h(
      "div",
      { class: "row" },
      button("Retry…", () => retry([it.key])),
      button("Remove…", () => remove([it.key]), "danger"),
    );
  const error = (it) =>
    h(
      "span",
      { class: "clamp", title: it.pollStatus.lastError?.message },
      untrusted(brief(it.pollStatus.lastError?.message) ?? "–"),
    );
  const cells = (it) => [
    ...(ADMIN ? [box(it)] : []),
    instanceLink(it.key, it.displayName),
    words[it.deadLetter.reason],
    error(it),
    date(it.deadLetter.firstAttempt),
    it.deadLetter.retryCount,
    it.deadLetter.nextRetry ? ago(it.deadLetter.nextRetry) : "under way",
    ...(ADMIN ? [actions(it)] : []),
  ];
  const columns = [
    ...(ADMIN ? [{ title: selectAll(rows), class: "narrow" }] : []),
    "Instance",
    "Reason",
    { title: "Last error", class: "wide" },
    { title: "Failing since", class: "narrow" },
    { title: "Failed rechecks", class: "number" },
    "Next recheck",
    ...(ADMIN ? [{ title: "", class: "narrow" }] : []),
  ];
  if (deadLetters.length === 0) fill(by("dlq"), empty("The queue is empty", "No instance has failed for good."));
  else if (rows.length === 0) fill(by("dlq"), empty("No dead letter matches"));
  else fill(by("dlq"), table("Dead letters", columns, rows.slice(0, ROWS).map(cells)), tooMany(rows, ROWS));
  showActions();
}

function selectAll(rows) {
  const shown = rows.slice(0, ROWS).map((it) => it.key);
  return h("input", {
    type: "checkbox",
    "aria-label": "Select all that are shown",
    checked: shown.length > 0 && shown.every((key) => selected.has(key)),
    onchange: (event) => choose(shown, event.target.checked),
  });
}

function showActions() {
  if (!ADMIN || deadLetters.length === 0) return fill(by("dlq-actions"));
  const some = [...selected];
  fill(
    by("dlq-actions"),
    some.length > 0 && h("button", { type: "button", onclick: () => retry(some) }, `Retry selected (${some.length})…`),
    some.length > 0 &&
      h(
        "button",
        { type: "button", class: "danger", onclick: () => remove(some) },
        `Remove selected (${some.length})…`,
      ),
    h("button", { type: "button", onclick: retryAll }, `Retry all (${deadLetters.length})…`),
  );
}

function choose(keys, on) {
  for (const key of keys) on ? selected.add(key) : selected.delete(key);
  draw();
}

/** One call a key, at the pace that the daemon's limit allows; what was refused is told by its key. */
async function each(keys, place, act) {
  const problems = [];
  for (const [index, key] of keys.entries()) {
    if (!place.isConnected)
      throw new Refused({
        title: "Called off",
        detail: `${index} of ${keys.length} calls were made`,
      });
    try {
      await patiently(act, key, (wait) =>
        fill(
          place,
          h(
            "p",
            { role: "status" },
            `${index} of ${keys.length} done. The daemon takes a few calls a minute; the next follows in ${wait} s.`,
          ),
        ),
      );
    } catch (error) {
      problems.push({ at: key, detail: error.message });
    }
  }
  if (problems.length > 0)
    throw new Refused({
      title: `${problems.length} of ${keys.length} calls were refused`,
      detail: "the others were carried out",
      errors: problems,
    });
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

async function retry(keys) {
  await ask({
    title: keys.length === 1 ? `Recheck ${keys[0]} now?` : `Recheck ${keys.length} dead letters now?`,
    what: "Each is polled once. A success takes it back to the live queue; a failure leaves it here and it waits for its next recheck.",
    button: "Recheck",
    reason: "optional",
    act: async (reason) => {
      if (keys.length === 1) {
        await post(about("/api/monitoring/dlq", keys[0], "retry"), given(reason));
        fill(by("dlq-told"), done(`${keys[0]} is rechecked.`));
      } else {
        const { tasksRetried } = await post("/api/monitoring/dlq/retry", {
          ...given(reason),
          keys,
        });
        fill(by("dlq-told"), done(`${tasksRetried} of ${keys.length} rechecks are planned, spread out.`));
      }
      selected.clear();
    },
  });
  await reload();
}

async function retryAll() {
  await ask({
    title: `Recheck all ${deadLetters.length} dead letters?`,
    what: "Each is polled once, spread out so that the hosts are not flooded.",
    button: "Recheck all",
    reason: "optional",
    act: async (reason) => {
      const answer = await post("/api/monitoring/dlq/retry", given(reason));
      fill(by("dlq-told"), done(`${answer.tasksRetried} rechecks are planned.`));
    },
  });
  await reload();
}

async function remove(keys) {
  const undo = {
    label: keys.length === 1 ? "Undo: poll it again" : "Undo: poll them again",
    act: () => each(keys, by("dlq-told"), (key) => post(about("/api/monitoring/instances", key, "resume"))),
    done: () => "Polled again.",
  };
  await ask({
    title: keys.length === 1 ? `Stop polling ${keys[0]}?` : `Stop polling ${keys.length} instances?`,
    what: "It leaves the dead-letter queue and is no longer polled until it is enabled, edited or added again. Its last reading stays.",
    button: "Stop polling",
    reason: "optional",
    danger: true,
    act: async (reason, place) => {
      await each(keys, place, (key) => call("DELETE", about("/api/monitoring/dlq", key), given(reason)));
      for (const key of keys) selected.delete(key);
      fill(
        by("dlq-told"),
        done(
          keys.length === 1 ? `${keys[0]} is no longer polled.` : `${keys.length} instances are no longer polled.`,
          undo,
        ),
      );
    },
  });
  await reload();
}

for (const id of ["dlq-text", "dlq-reason"]) by(id).addEventListener("input", draw);
