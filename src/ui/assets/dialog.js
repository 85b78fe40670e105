// A dialog around a form: it takes the focus, and gives it back when it is closed.

import { h, remember } from "./dom.js";

/**
 * Shows one, with a button beside the given ones that calls it off.
 * @param {{ title: string, body: any[], buttons: HTMLElement[], closed?: () => void }} content `closed` is called when it is gone, however that came
 * @returns {{ form: HTMLFormElement, dialog: HTMLDialogElement }}
 */
export function modal({ title, body, buttons, closed }) {
  const form = h(
    "form",
    { method: "dialog" },
    h("h2", { id: "dialog-title", dir: "auto" }, title),
    ...body,
    h(
      "div",
      { class: "row buttons" },
      h("button", { type: "button", onclick: () => dialog.close() }, "Cancel"),
      ...buttons,
    ),
  );
  const dialog = h(
    "dialog",
    {
      "aria-labelledby": "dialog-title",
      onclose: () => {
        dialog.remove();
        refocus();
        closed?.();
      },
    },
    form,
  );
  const refocus = remember(document.activeElement);
  document.body.append(dialog);
  dialog.showModal();
  return { form, dialog };
}
