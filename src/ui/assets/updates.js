// The history of the configuration: who changed what and why, the difference, and the way back.

import { get, may, post } from "./api.js";
import { by, empty, fill, h, pager, remember, table, untrusted } from "./dom.js";
import { date } from "./format.js";
import { ask, done, problem } from "./tell.js";

const text = (value) => (value === null ? "–" : typeof value === "string" ? value : JSON.stringify(value));
const line = ({ field, before, after }) => [
  h("code", {}, field),
  h("span", { class: before === null ? "" : "before" }, untrusted(text(before))),
  h("span", { class: after === null ? "" : "after" }, untrusted(text(after))),
];

/** A readable difference: what each field was, and what it is. */
function difference({ settings, instances }) {
  const changed = (title, fields) => [
    h("h3", { dir: "auto" }, title),
    table(title, ["Field", "Before", "After"], fields.map(line)),
  ];
  const parts = [
    ...(settings.length > 0 ? changed("Settings", settings) : []),
    ...instances.flatMap(({ key, change, fields }) => changed(`${key}: ${change}`, fields)),
  ];
  return h("div", {}, ...(parts.length > 0 ? parts : [h("p", {}, "Nothing that matters differs.")]));
}

async function showVersion(version) {
  const answer = await get(`/api/config/history/${version}`);
  const dialog = h(
    "dialog",
    {
      class: "broad",
      "aria-labelledby": "version-shown",
      onclose: () => {
        dialog.remove();
        refocus();
      },
    },
    h("h2", { id: "version-shown" }, `Version ${version}: what changed`),
    difference(answer.difference),
    h("form", { method: "dialog" }, h("div", { class: "row buttons" }, h("button", {}, "Close"))),
  );
  const refocus = remember(document.activeElement);
  document.body.append(dialog);
  dialog.showModal();
}

async function restore(version) {
  await ask({
    title: `Restore version ${version}?`,
    what: "Settings and instances become what they were in that version, at once and without a restart. The restoration is a version of its own, so it can be undone in the same way.",
    button: "Restore",
    reason: "required",
    act: async (reason) => {
      const answer = await post("/api/config/rollback", { version, reason });
      fill(
        by("told"),
        done(answer.version === null ? "That version is in force already." : `Restored, as version ${answer.version}.`),
      );
    },
  });
  await load();
}

let before = null;

async function load() {
  const { versions, next } = await get(`/api/config/history${before === null ? "" : `?before=${before}`}`);
  const buttons = (it, index) =>
    h(
      "div",
      { class: "row" },
      h(
        "button",
        {
          type: "button",
          class: "small",
          onclick: () => showVersion(it.version).catch((error) => fill(by("told"), problem(error))),
        },
        "What changed",
      ),
      (before !== null || index > 0) &&
        h(
          "button",
          {
            type: "button",
            class: "small",
            onclick: () => restore(it.version),
          },
          "Restore…",
        ),
    );
  const number = (it, index) =>
    before === null && index === 0
      ? h("span", { class: "row" }, String(it.version), h("span", { class: "origin" }, "in force"))
      : it.version;
  const row = (it, index) => [
    number(it, index),
    date(it.at),
    untrusted(it.by),
    it.source,
    untrusted(it.summary),
    untrusted(it.reason ?? "–"),
    buttons(it, index),
  ];
  fill(
    by("history"),
    versions.length === 0
      ? empty("Nothing was changed yet")
      : table(
          "Versions of the configuration",
          [
            { title: "Version", class: "narrow" },
            { title: "When", class: "narrow" },
            "Who",
            "By way of",
            "Summary",
            "Why",
            { title: "", class: "narrow" },
          ],
          versions.map(row),
        ),
    pager(before !== null, next, (to) => {
      before = to;
      load().catch(failed);
    }),
  );
}

const failed = (error) => fill(by("told"), problem(error));
if (may("admin")) load().catch(failed);
else
  fill(by("history"), empty("Only administrators see the history", "It tells who changed what, and where hosts are."));
