// One instance: its state, what happened to its polls, what was read last, and what can be done.

import { about, get, given, may, post } from "./api.js";
import { by, empty, fill, h, table, untrusted } from "./dom.js";
import { ago, date, span } from "./format.js";
import { LiveEvents } from "./live.js";
import { reading } from "./reading.js";
import { ask, done, problem } from "./tell.js";
import { tested } from "./tested.js";
import { timeline } from "./timeline.js";

const key = by("instance").dataset.key;
const ADMIN = may("admin");

const REASONS = {
  first: "its first poll",
  base: "healthy: the base interval",
  changing: "its reading changed lately: sooner",
  catching_up: "it was late or comes back from failures: sooner",
  neighbour_failed: "another one on its machine fails: sooner",
  quiet: "nothing new for long: later",
  fixed: "its fixed interval",
  policy: "chosen by the policy",
  backoff: "it failed: backed off",
  retry_after: "the host asked to be left alone until then",
  breaker_open: "its breaker is open until then",
  recheck: "it is dead-lettered: a recheck",
  operator: "an operator asked for it",
  replanned: "the settings changed",
};

function stateWords({ place, late, instance }) {
  if (place === "paused") return ["paused", "Paused: it is not polled"];
  if (instance.deadLetter.present)
    return [
      "dead_lettered",
      `Dead-lettered (${instance.deadLetter.reason === "permanent_failure" ? "a permanent failure" : "too many failures in a row"}); ${instance.deadLetter.nextRetry ? `rechecked ${ago(instance.deadLetter.nextRetry)}` : "a recheck is under way"}`,
    ];
  if (instance.breaker.state === "open")
    return ["open", `Its breaker is open; probed ${ago(instance.breaker.retryAt)}`];
  if (instance.breaker.state === "half_open") return ["open", "Its breaker is half-open: a probe is under way"];
  if (instance.pollStatus.consecutiveFailures > 0)
    return ["failing", `Failing: ${instance.pollStatus.consecutiveFailures} in a row`];
  if (late) return ["late", "Late: its last success is older than its plan allows"];
  if (instance.pollStatus.lastSuccess === null) return ["waiting", "Not polled yet"];
  return ["fresh", "Read in time"];
}

function showStatus(answer) {
  const { instance, nextPoll, place } = answer;
  const [state, words] = stateWords(answer);
  const error = instance.pollStatus.lastError;
  const due = nextPoll && (Date.parse(nextPoll) > Date.now() ? ago(nextPoll) : "now");
  const facts = [
    ["Last success", instance.pollStatus.lastSuccess ? ago(instance.pollStatus.lastSuccess) : "never"],
    ["Next poll", place === "in_flight" ? "under way" : (due ?? "–")],
    ["Interval", answer.intervalMillis > 0 ? span(answer.intervalMillis) : "–"],
    [
      "Breaker",
      instance.breaker.state === "unknown" ? "none: an availability check" : instance.breaker.state.replace("_", "-"),
    ],
    ["Address", untrusted(instance.connection)],
  ];
  if (instance.pollStatus.firstFailureAt) facts.push(["Failing since", date(instance.pollStatus.firstFailureAt)]);
  const shown = h(
    "div",
    {},
    h(
      "p",
      { class: "state state-line", "data-state": state },
      h("span", { class: "shape", "aria-hidden": "true" }),
      words,
    ),
    error &&
      h(
        "div",
        { class: "problem" },
        h("strong", {}, `${error.category.replaceAll("_", " ")}, ${ago(error.at)}`),
        h("div", {}, untrusted(error.message)),
      ),
    h("dl", { class: "facts" }, ...facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))),
  );
  fill(by("status"), shown);
}

function showActions(answer) {
  const test = may("operator") && h("button", { type: "button", onclick: testConnection }, "Test the connection");
  if (!ADMIN) return fill(by("actions"), test);
  const { instance, place } = answer;
  const breaker =
    instance.breaker.state === "open" || instance.breaker.state === "half_open" || instance.breaker.failureCount > 0;
  const button = (words, act, more = {}) => h("button", { type: "button", onclick: act, ...more }, words);
  fill(
    by("actions"),
    (place === "queued" || place === "in_flight") &&
      ["closed", "unknown"].includes(instance.breaker.state) &&
      button("Poll now", pollNow, { disabled: place === "in_flight" }),
    breaker && !instance.deadLetter.present && button("Reset the breaker…", resetBreaker),
    instance.deadLetter.present && place !== "paused" && button("Retry…", retry),
    place === "paused" ? button("Poll again", resume) : button("Pause…", pause),
    test,
    h(
      "a",
      {
        class: "button",
        href: `/settings/instances?edit=${encodeURIComponent(key)}`,
      },
      "Edit…",
    ),
    button("Remove…", remove, { class: "danger" }),
  );
}

/** Does what needs no question, and tells it above. */
async function act(path, words) {
  try {
    fill(by("told"), done(words(await post(path))));
  } catch (error) {
    fill(by("told"), problem(error));
  }
  await load();
}

const pollNow = () => act(about("/api/monitoring/instances", key, "poll"), () => "The poll is ordered.");
const resume = () => act(about("/api/monitoring/instances", key, "resume"), () => "It is polled again.");

const asked = (question, path, words, undo) => async () => {
  await ask({
    ...question,
    act: async (reason) => fill(by("told"), done(words(await post(path, given(reason))), undo)),
  });
  await load();
};

const pause = asked(
  {
    title: `Pause ${key}?`,
    what: "It is not polled until it is resumed, edited or added again; a poll under way is called off. Its last reading stays, with its age.",
    button: "Pause",
    reason: "optional",
  },
  about("/api/monitoring/instances", key, "pause"),
  () => "Paused.",
  {
    label: "Undo",
    act: async () => {
      await post(about("/api/monitoring/instances", key, "resume"));
      await load();
    },
    done: () => "It is polled again.",
  },
);
const resetBreaker = asked(
  {
    title: `Reset the breaker of ${key}?`,
    what: "The breaker closes, its failures are forgotten and the host is polled at once. If it is still broken, the breaker opens again after as many failures as are set.",
    button: "Reset the breaker",
    reason: "required",
  },
  about("/api/monitoring/breakers", key, "reset"),
  (answer) => `The breaker was ${answer.previousState} and is ${answer.newState}.`,
);
const retry = asked(
  {
    title: `Recheck ${key} now?`,
    what: "It is polled once. A success takes it back to the live queue; a failure leaves it dead-lettered.",
    button: "Recheck",
    reason: "optional",
  },
  about("/api/monitoring/dlq", key, "retry"),
  () => "The recheck is ordered.",
);

async function testConnection() {
  fill(by("told"), h("p", { role: "status" }, "Testing …"));
  try {
    fill(by("told"), tested(await post("/api/config/nodes/test-connection", { key })));
  } catch (error) {
    fill(by("told"), problem(error));
  }
}

async function remove() {
  location.assign(`/settings/instances?remove=${encodeURIComponent(key)}`);
}

function showHistory(entries) {
  const polls = entries.filter((entry) => entry.event === "polled").reverse();
  if (polls.length === 0) return fill(by("history"), empty("No poll has ended yet"));
  const result = (poll) => (poll.category === null ? "success" : untrusted(`${poll.category}: ${poll.message}`));
  const chosen = (poll) =>
    poll.nextMillis === null ? "–" : `${span(poll.nextMillis)}: ${REASONS[poll.reason] ?? poll.reason}`;
  const rows = polls.slice(0, 50).map((poll) => [date(poll.at), span(poll.tookMillis), result(poll), chosen(poll)]);
  fill(
    by("history"),
    timeline(entries),
    h(
      "details",
      {},
      h("summary", {}, `The last ${rows.length} polls as a table`),
      table(
        "Polls",
        [
          { title: "When", class: "narrow" },
          { title: "Took", class: "narrow" },
          { title: "Result", class: "wide" },
          "Then the next after",
        ],
        rows,
      ),
    ),
  );
}

async function load() {
  const answer = await get(about("/api/monitoring/instances", key));
  showStatus(answer);
  showActions(answer);
  if (!by("history").querySelector("details[open]")) showHistory(answer.history);
  const state = await get(`/api/state?key=${encodeURIComponent(key)}`);
  fill(by("reading"), reading(state.instances[0]));
}

/** That the daemon cannot be reached stands above already. */
const failed = (error) => {
  if (by("offline").hidden) fill(by("told"), problem(error));
};

let timer = 0;
const soon = () => {
  timer ||= setTimeout(() => {
    timer = 0;
    load().catch(failed);
  }, 500);
};

new LiveEvents({
  onEvent: (_, event) => {
    if (event.key === key) soon();
  },
  onGap: () => load().catch(failed),
});
// Successes that change nothing come without an event.
setInterval(() => {
  if (!document.hidden) soon();
}, 5_000);
