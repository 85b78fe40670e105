// Tells, where a call was made, what came of it; and asks before one is made.

import { fill, h } from "./dom.js";
import { Refused } from "./api.js";
import { modal } from "./dialog.js";

/** A refusal in words: what, why, and each single reason. */
export function problem(error) {
  const known = error instanceof Refused;
  if (!known) console.error(error);
  const box = h(
    "div",
    { class: "problem", role: "alert" },
    h("strong", {}, known ? error.title : "The page failed"),
    h("div", { dir: "auto" }, error.message),
  );
  if (known && error.errors.length > 0) {
    box.append(
      h("ul", {}, ...error.errors.map((reason) => h("li", {}, h("code", {}, reason.at), `: ${reason.detail}`))),
    );
  }
  if (known && error.retryAfter) box.append(h("div", {}, `Try again in ${error.retryAfter} s.`));
  return box;
}

/** A file of the configuration that is broken as it stands. */
export const refusedEdit = ({ file, errors }) =>
  h(
    "div",
    { class: "problem" },
    h("strong", { dir: "auto" }, `An edit of ${file} was refused; what was in force stays`),
    h("ul", {}, ...errors.map((error) => h("li", { dir: "auto" }, error))),
  );

/** A note that something was done, with a way to undo it if there is one. */
export function done(text, undo) {
  const place = h("div");
  const button =
    undo &&
    h(
      "button",
      {
        type: "button",
        class: "small",
        onclick: () => run(place, undo.act, undo.done),
      },
      undo.label,
    );
  place.append(h("div", { class: "done", role: "status" }, h("span", { dir: "auto" }, text), button || ""));
  return place;
}

/** Does `act`, and puts what came of it into `place`. Whatever `act` gives is handed to `words`. */
export async function run(place, act, words) {
  try {
    const answer = await act();
    const told = words?.(answer);
    fill(place, typeof told === "string" ? done(told) : (told ?? null));
    return answer;
  } catch (error) {
    fill(place, problem(error));
    return undefined;
  }
}

/**
 * A dialog that stays open, and tells what was refused, until `act` has succeeded or it is called off.
 * @param {{ title: string, body: any[], submit: HTMLButtonElement, told: HTMLElement, act: (form: HTMLFormElement) => Promise<any> }} question
 * @returns {Promise<any>} what `act` gave; `undefined` if it was called off
 */
export function until({ title, body, submit, told, act }) {
  return new Promise((resolve) => {
    let answer;
    const { form, dialog } = modal({ title, body: [...body, told], buttons: [submit], closed: () => resolve(answer) });
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      submit.disabled = true;
      try {
        answer = (await act(form)) ?? true;
        dialog.close();
      } catch (error) {
        fill(told, problem(error));
        submit.disabled = false;
      }
    });
  });
}

/**
 * Asks before something is done: what will happen, and why it is done.
 * @param {{ title: string, what: string, button: string, reason?: "required" | "optional", danger?: boolean, act: (reason: string, place: HTMLElement) => Promise<unknown> }} question `place` is for what is to be told meanwhile
 * @returns {Promise<unknown>} what `act` gave; `undefined` if it was not done
 */
export function ask(question) {
  const told = h("div");
  const reason = h("input", {
    id: "reason",
    maxlength: "500",
    autocomplete: "off",
    required: question.reason === "required",
  });
  const label = question.reason === "required" ? "Reason" : "Reason (optional)";
  return until({
    title: question.title,
    body: [
      h("p", {}, question.what),
      question.reason && h("label", { for: "reason" }, label),
      question.reason && reason,
    ],
    submit: h("button", { class: question.danger ? "danger primary" : "primary", type: "submit" }, question.button),
    told,
    act: () => question.act(reason.value.trim(), told),
  });
}
