// The nodes of an instance's cluster, and adding those that are not watched yet.

import { about, get, post } from "./api.js";
import { fill, h, untrusted } from "./dom.js";
import { problem, until } from "./tell.js";

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
  let offered = [];
  const answer = until({
    title: `Cluster of ${key}`,
    body: [list],
    submit: send,
    told,
    act: () => {
      const chosen = offered.filter(({ box }) => box.checked);
      return post(to, { nodes: chosen.map(({ name, offer }) => ({ name, fingerprint: offer.fingerprint })) });
    },
  });
  try {
    const cluster = await get(to);
    const lines = cluster.nodes.map(line);
    offered = lines.filter(({ offer }) => offer);
    fill(list, ...shown(cluster, key, lines, offered));
    send.disabled = offered.length === 0;
  } catch (error) {
    fill(list);
    fill(told, problem(error));
  }
  const done = await answer;
  if (done) added(done.keys);
}

/** The nodes as they are shown, and what adding one means. */
function shown(cluster, key, lines, offered) {
  const pinned = offered.some(({ offer }) => offer.fingerprint);
  const meaning = `Nodes are added with the credentials of ${key}.${pinned ? " Adding one trusts the certificate that is shown." : ""}`;
  return [
    h("p", {}, "The nodes of ", untrusted(cluster.cluster), ":"),
    ...lines.map(({ row }) => row),
    h("p", { class: "hint" }, offered.length === 0 ? "There is no node to add." : meaning),
  ];
}
