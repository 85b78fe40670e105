// The breakers that are not closed, and what resets them.

import { about, given, may, post } from "./api.js";
import { by, empty, fill, h, instanceLink, state, table, tooMany } from "./dom.js";
import { ago } from "./format.js";
import { ask, done } from "./tell.js";

const ADMIN = may("admin");
/** How many rows the table has at the most. */
const ROWS = 500;

const BREAKERS = {
  open: () => state("open", "open"),
  half_open: () => state("late", "half-open"),
  closed: () => state("failing", "closed, counting"),
};

/** Shows these; `reload` asks for them anew. */
export function showBreakers(rows, deadLetters, reload) {
  if (rows.length === 0)
    return fill(
      by("breakers"),
      empty(
        "Every breaker is closed",
        deadLetters > 0 ? "Those of dead letters are told of above." : "No host is failing.",
      ),
    );
  const reset = (key) =>
    ADMIN && h("button", { type: "button", class: "small", onclick: () => resetBreaker(key, reload) }, "Reset…");
  const cells = ({ key, displayName, breaker }) => [
    instanceLink(key, displayName),
    BREAKERS[breaker.state](),
    breaker.failureCount,
    breaker.retryAt ? ago(breaker.retryAt) : "–",
    reset(key) || "",
  ];
  fill(
    by("breakers"),
    table(
      "Circuit breakers",
      [
        "Instance",
        "State",
        { title: "Failures in a row", class: "number" },
        "Next probe",
        { title: "", class: "narrow" },
      ],
      rows.slice(0, ROWS).map(cells),
    ),
    tooMany(rows, ROWS),
  );
}

async function resetBreaker(key, reload) {
  await ask({
    title: `Reset the breaker of ${key}?`,
    what: "The breaker closes, its failures are forgotten and the host is polled at once. If it is still broken, the breaker opens again after as many failures as are set.",
    button: "Reset the breaker",
    reason: "required",
    act: async (reason) => {
      const answer = await post(about("/api/monitoring/breakers", key, "reset"), { reason });
      fill(by("breakers-told"), done(`The breaker of ${key} was ${answer.previousState} and is ${answer.newState}.`));
    },
  });
  await reload();
}
