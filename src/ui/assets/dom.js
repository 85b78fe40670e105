// Makes elements. Whatever is put into them becomes text, so nothing that a host or an operator wrote can become markup.

/**
 * @param {string} tag
 * @param {Record<string, unknown>} [attributes] `on…` adds a listener, `class`, `dataset` and properties as they are named
 * @param {...(Node | string | number | null | undefined | false)} children
 */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), /** @type {EventListener} */ (value));
    else if (name === "dataset") Object.assign(element.dataset, value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false).map(asNode));
  return element;
}

function asNode(child) {
  return child instanceof Node ? child : String(child);
}

/** Replaces what is in `parent`. Whoever has the focus in it keeps it, on what is the same to them. */
export function fill(parent, ...children) {
  const keepFocus = parent.contains(document.activeElement) && remember(document.activeElement);
  parent.replaceChildren(...children.filter((child) => child !== null && child !== undefined && child !== false));
  if (keepFocus) keepFocus();
}

/** What finds an element again when another was put into its place, and gives it the focus. */
export function remember(element) {
  const looks = (it) =>
    [
      it.tagName,
      it.id,
      it.getAttribute("aria-label") ?? it.textContent,
      it.closest("tr")?.querySelector("a")?.href,
    ].join("\n");
  const before = looks(element);
  return () => {
    if (element.isConnected) return element.focus();
    [...document.querySelectorAll(element.tagName)].find((it) => looks(it) === before)?.focus();
  };
}

/** @returns {HTMLElement} the element with this id, which the page must have */
export function by(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no element #${id}`);
  return found;
}

/** A table with a caption for screen readers. Cells are nodes or text; a column may be `{ title, class: "number" | "narrow" }`. */
export function table(caption, columns, rows) {
  const head = columns.map((column) =>
    (column.title ?? column) === ""
      ? h("td", { class: column.class })
      : h("th", { scope: "col", class: column.class }, column.title ?? column),
  );
  const body = rows.map((row) =>
    h("tr", {}, ...row.map((cell, index) => h("td", { class: columns[index].class }, cell))),
  );
  return h(
    "div",
    { class: "scroll", tabindex: "0", role: "group", "aria-label": caption },
    h(
      "table",
      {},
      h("caption", { class: "visually-hidden" }, caption),
      h("thead", {}, h("tr", {}, ...head)),
      h("tbody", {}, ...body),
    ),
  );
}

/** Text of a stranger: kept apart from the direction of ours, and bounded in height. */
export function untrusted(text) {
  const long = text.length > 400;
  return h(
    "span",
    {
      class: long ? "untrusted long" : "untrusted",
      dir: "auto",
      tabindex: long ? "0" : undefined,
    },
    text,
  );
}

/** A state with its shape, which says the same as its colour. */
export function state(name, words) {
  return h("span", { class: "state", "data-state": name }, h("span", { class: "shape", "aria-hidden": "true" }), words);
}

/** What stands where there is nothing to show yet. */
export function empty(title, words, ...more) {
  return h("div", { class: "empty" }, h("strong", {}, title), words && h("p", {}, words), ...more);
}

/** Ways to the newest and to older rows of a list that goes back in time. @param {(before: number | null) => void} go */
export function pager(isBack, next, go) {
  const button = (words, to) => h("button", { type: "button", class: "small", onclick: () => go(to) }, words);
  if (!isBack && next === null) return null;
  return h("div", { class: "row buttons" }, isBack && button("Newest", null), next !== null && button("Older", next));
}

/** Leads to an instance by the name that people see. */
export const instanceLink = (key, name) =>
  h("a", { href: `/instances/${encodeURIComponent(key)}`, dir: "auto" }, name ?? key);

/** What is said below a table that shows only the first rows: further ones help nobody, a filter does. */
export const tooMany = (rows, most) =>
  rows.length > most ? h("p", { class: "hint" }, `The first ${most} of ${rows.length} are shown.`) : null;
