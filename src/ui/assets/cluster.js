// The nodes of an instance's cluster, and adding those that are not watched yet.

import { about, get, post } from "./api.js";
import { modal } from "./dialog.js";
import { fill, h, untrusted } from "./dom.js";
import { problem } from "./tell.js";

/** A node with what it takes to choose it. What it shows itself has to be looked at before it is chosen. */
function line({ name, address, online, configured, offer, problem: why }) {
  const id = `node-${name}`;
  const first = offer?.fingerprintSource === "firstContact";
  const box = h("input", { type: "checkbox", id, disabled: !offer, checked: Boolean(offer && online && !first) });
  const state = configured ? `watched as ${configured}` : (why ?? (online ? "not watched yet" : "offline"));
  const row = h(
    "div",
    {},
    h("div", { class: "row" }, box, h("label", { for: id }, h("strong", { dir: "auto" }, name))),
    h("p", { class: "hint" }, untrusted(address ?? "no address"), " · ", untrusted(state)),
    offer?.fingerprint &&
      h(
        "p",
        { class: "hint" },
        first
          ? "Its certificate, as it shows itself. Compare it with the node's own: "
          : "Its certificate, as the cluster tells it: ",
        h("code", {}, offer.fingerprint),
      ),
  );
  return { name, offer, box, row };
}

/**
 * Asks an instance for its cluster and shows it, to add nodes from it.
 * @param {string} path where instances are configured @param {string} key @param {(keys: string[]) => void} added
 */
export async function findNodes(path, key, added) {
  const to = about(path, key, "cluster");
  const told = h("div");
  const list = h("div", {}, h("p", { role: "status" }, `Asking ${key} …`));
  const send = h("button", { type: "submit", class: "primary", disabled: true }, "Add the chosen");
  const { form, dialog } = modal({ title: `Cluster of ${key}`, body: [list, told], buttons: [send] });
  let cluster;
  try {
    cluster = await get(to);
  } catch (error) {
    fill(list);
    return fill(told, problem(error));
  }
  const lines = cluster.nodes.map(line);
  const offered = lines.filter(({ offer }) => offer);
  const pinned = offered.some(({ offer }) => offer.fingerprint);
  fill(
    list,
    h("p", {}, "The nodes of ", untrusted(cluster.cluster), ":"),
    ...lines.map(({ row }) => row),
    h(
      "p",
      { class: "hint" },
      offered.length === 0
        ? "There is no node to add."
        : `Nodes are added with the credentials of ${key}.${pinned ? " Adding one trusts the certificate that is shown." : ""}`,
    ),
  );
  send.disabled = offered.length === 0;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      const chosen = offered.filter(({ box }) => box.checked);
      const nodes = chosen.map(({ name, offer }) => ({ name, fingerprint: offer.fingerprint }));
      const { keys } = await post(to, { nodes });
      dialog.close();
      added(keys);
    } catch (error) {
      fill(told, problem(error));
    }
  });
}
