// The settings of monitoring: the switch of adaptive polling, and a field for each other one with where its value came from.

import { Refused, get, may, post } from "./api.js";
import { by, fill, h } from "./dom.js";
import { done, problem, refusedEdit, run } from "./tell.js";

const ADMIN = may("admin");
const ORIGINS = {
  environment: "environment",
  file: "system.json",
  default: "default",
};
/** What settings are about, by how their names begin. */
const SUBJECTS = [
  ["Intervals", /^adaptivePolling/],
  ["Slots", /^pollingMax/],
  ["Each type", /^(pve|pbs|pmg|http|tcp)Polling/],
  ["Backoff", /^pollingBackoff/],
  ["Circuit breakers", /^breaker/],
  ["Dead letters", /^deadLetter/],
  ["Further", /./],
];
let settings = [];

function setting(name) {
  return settings.find((it) => it.name === name);
}

/** Asks for the settings, and shows them. */
export async function loadSettings() {
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
  if (origin === "environment")
    fill(by("adaptive-told"), h("p", { class: "hint" }, `Pinned by ${environment}; change it there.`));
}

by("adaptive").addEventListener("change", async (event) => {
  const wanted = event.target.checked;
  const set = (value) => post("/api/system/settings/update", { adaptivePollingEnabled: value });
  const undo = {
    label: "Undo",
    act: async () => {
      await set(!wanted);
      event.target.checked = !wanted;
    },
    done: () => "Undone.",
  };
  const answer = await run(
    by("adaptive-told"),
    () => set(wanted),
    () => done(wanted ? "Adaptive polling is on." : "Adaptive polling is off.", undo),
  );
  if (!answer) event.target.checked = !wanted;
});

/** `pollingMaxInFlight` as people write it, below a heading that tells what it is about. */
function title(name) {
  const words = name
    .replace(/([A-Z])/g, " $1")
    .toLowerCase()
    .replace(/^(adaptive |dead letter )?(polling )?/, "")
    .replace(/^(pve|pbs|pmg|http|tcp) polling/, (_, type) => type.toUpperCase());
  return words[0].toUpperCase() + words.slice(1);
}

/** A text with `code` in it. */
const withCode = (text) => text.split("`").map((part, index) => (index % 2 ? h("code", {}, part) : part));

/** One field: its value, where it came from, and what it is for. */
function field({ name, value, origin, environment, help, default: standard }) {
  const pinned = origin === "environment";
  const text = value === null ? "" : String(value);
  const input =
    typeof value === "boolean"
      ? h("input", {
          id: name,
          name,
          type: "checkbox",
          checked: value,
          disabled: pinned || !ADMIN,
        })
      : h("input", {
          id: name,
          name,
          value: text,
          autocomplete: "off",
          disabled: pinned || !ADMIN,
          "aria-describedby": `${name}-hint`,
        });
  input.dataset.before = typeof value === "boolean" ? String(value) : text;
  const from = h("span", { class: "origin", "data-origin": origin }, ORIGINS[origin]);
  const words = pinned ? ` Set by ${environment}.` : origin === "default" ? "" : ` Default ${standard ?? "none"}.`;
  return h(
    "div",
    {},
    h("label", { for: name }, title(name)),
    input,
    h("p", { class: "hint", id: `${name}-hint` }, from, ...withCode(help), words),
  );
}

function showSettings(refusedEdits) {
  const left = settings.filter((it) => it.name !== "adaptivePollingEnabled");
  const groups = SUBJECTS.map(([words, pattern]) => {
    const own = left.filter((it) => pattern.test(it.name));
    for (const it of own) left.splice(left.indexOf(it), 1);
    return (
      own.length > 0 && h("fieldset", {}, h("legend", {}, words), h("div", { class: "fields" }, ...own.map(field)))
    );
  });
  const told = h("div", { id: "settings-told" });
  const save =
    ADMIN &&
    h(
      "div",
      { class: "row buttons" },
      h("span", { class: "hint" }, "Takes effect at once, without a restart. An empty field takes the default."),
      h("button", { class: "primary", type: "submit" }, "Apply"),
    );
  fill(by("settings"), ...refusedEdits.map(refusedEdit), ...groups, told, save || null);
}

function changed(form) {
  const inputs = [...form.querySelectorAll("input:not(:disabled)")];
  const now = (input) => (input.type === "checkbox" ? String(input.checked) : input.value.trim());
  const typed = (input) => {
    if (input.type === "checkbox") return input.checked;
    if (input.value.trim() === "") return null;
    return typeof setting(input.name).default === "number" ? Number(input.value) : input.value.trim();
  };
  return Object.fromEntries(
    inputs.filter((input) => now(input) !== input.dataset.before).map((input) => [input.name, typed(input)]),
  );
}

by("settings").addEventListener("submit", async (event) => {
  event.preventDefault();
  const patch = changed(event.target);
  const told = by("settings-told");
  for (const input of event.target.querySelectorAll("[aria-invalid]")) input.removeAttribute("aria-invalid");
  if (Object.keys(patch).length === 0) return fill(told, done("Nothing was changed."));
  const before = Object.fromEntries(
    Object.keys(patch).map((name) => [name, setting(name).origin === "default" ? null : setting(name).value]),
  );
  try {
    settings = (await post("/api/system/settings/update", patch)).settings;
    showSwitch();
    showSettings([]);
    const undo = {
      label: "Undo",
      act: async () => {
        await post("/api/system/settings/update", before);
        await loadSettings();
      },
      done: () => "Undone.",
    };
    fill(by("settings-told"), done(`Applied: ${Object.keys(patch).join(", ")}.`, undo));
  } catch (error) {
    fill(told, problem(error));
    if (error instanceof Refused) {
      for (const { at } of error.errors)
        document.getElementById(at.split(/[:\s]/).at(-1))?.setAttribute("aria-invalid", "true");
    }
  }
});
