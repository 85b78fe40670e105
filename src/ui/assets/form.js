// A dialog with fields, filled in, sent, and kept open with what was refused until it is right.

import { h } from "./dom.js";
import { until } from "./tell.js";

/**
 * @typedef {{ name: string, label: string, type?: string, value?: string, options?: (string | [string, string])[], hint?: string, optional?: boolean, autocomplete?: string }} Field
 */

/** One labelled field. @param {Field} field */
export function field({ name, label, type = "text", value = "", options, hint, optional, autocomplete = "off" }) {
  const common = {
    id: `field-${name}`,
    name,
    required: !optional,
    "aria-describedby": hint && `hint-${name}`,
  };
  let input;
  if (options) {
    input = h(
      "select",
      common,
      ...options.map((option) => {
        const [code, words] = Array.isArray(option) ? option : [option, option];
        return h("option", { value: code, selected: code === value }, words);
      }),
    );
  } else if (type === "textarea") {
    input = h("textarea", { ...common, rows: "4", spellcheck: "false" }, value);
  } else {
    input = h("input", {
      ...common,
      type,
      value,
      autocomplete,
      autocapitalize: "none",
      spellcheck: "false",
    });
  }
  return h(
    "div",
    {},
    h("label", { for: `field-${name}` }, label),
    input,
    hint && h("p", { class: "hint", id: `hint-${name}` }, hint),
  );
}

/** The values of a form; fields that may be left empty and are, are left out. */
export function values(form) {
  const all = [...new FormData(form)].map(([name, value]) => [name, typeof value === "string" ? value.trim() : value]);
  return Object.fromEntries(all.filter(([, value]) => value !== ""));
}

/**
 * @param {{ title: string, what?: string, button: string, fields: Field[], act: (values: Record<string, string>) => Promise<any> }} question
 * @returns {Promise<any>} what `act` gave; `undefined` if it was called off
 */
export function form({ title, what, button, fields, act }) {
  return until({
    title,
    body: [what && h("p", {}, what), ...fields.map(field)],
    submit: h("button", { class: "primary", type: "submit" }, button),
    told: h("div"),
    act: (filled) => act(values(filled)),
  });
}
