// What came of testing a connection, in words.

import { h, untrusted } from "./dom.js";
import { span } from "./format.js";

/** @param {any} answer of `test-connection` @param {(fingerprint: string) => void} [pin] */
export function tested(answer, pin) {
  const call = (it) =>
    h(
      "li",
      {},
      h("code", {}, it.call),
      ` ${it.status ?? ""} ${span(it.tookMs)} `,
      it.problem ? untrusted(it.problem) : "",
    );
  const calls =
    answer.calls.length > 0 &&
    h(
      "details",
      {},
      h("summary", {}, `${answer.calls.length} ${answer.calls.length === 1 ? "call" : "calls"}`),
      h("ul", {}, ...answer.calls.map(call)),
    );
  if (answer.success)
    return h(
      "div",
      { class: "done", role: "status" },
      h("div", {}, `The connection works; it took ${span(answer.tookMs)}.`, calls),
    );
  const fingerprint = answer.untrustedFingerprint;
  return h(
    "div",
    { class: "problem", role: "alert" },
    h("strong", {}, fingerprint ? "The certificate is not trusted yet" : "The connection does not work"),
    h("div", {}, untrusted(answer.error?.message ?? "the endpoint is down")),
    fingerprint &&
      h("p", {}, "The SHA-256 fingerprint that was seen. Compare it with the host's own before you pin it:"),
    fingerprint && h("p", {}, h("code", {}, fingerprint)),
    fingerprint && pin && h("button", { type: "button", onclick: () => pin(fingerprint) }, "Pin this certificate"),
    calls,
  );
}
