// What was read last of an instance, by its type.

import { h, state, table, untrusted } from "./dom.js";
import { ago, bytes, percent, span } from "./format.js";

const GUESTS_SHOWN = 500;

/** A share from which on a disk or memory is called full in colour, and not only in figures. */
const HIGH = 0.9;

function usage(it) {
  if (!it || !it.total) return "–";
  const share = Math.min(1, it.used / it.total);
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const bar = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  for (const [name, value] of Object.entries({
    viewBox: "0 0 100 5",
    preserveAspectRatio: "none",
    "aria-hidden": "true",
  }))
    svg.setAttribute(name, value);
  for (const [name, value] of Object.entries({
    class: share >= HIGH ? "high" : "",
    width: share * 100,
    height: 5,
  }))
    bar.setAttribute(name, String(value));
  svg.append(bar);
  return h("div", { class: "meter" }, h("span", {}, `${percent(share)} of ${bytes(it.total)}`), svg);
}
const uptime = (seconds) => (seconds === null || seconds === undefined ? "–" : span(seconds * 1000));
const text = (it) => (it === null || it === undefined ? "–" : untrusted(String(it)));

function pve(it) {
  const cluster =
    it.cluster &&
    h(
      "p",
      {},
      "Cluster ",
      untrusted(it.cluster.name),
      `, ${it.cluster.quorate ? "quorate" : "NOT quorate"}, ${it.cluster.members ?? it.nodes.length} members`,
    );
  const nodes = it.nodes.map((node) => [
    text(node.name),
    node.online ? state("fresh", "online") : state("down", "offline"),
    percent(node.cpu),
    usage(node.memory),
    usage(node.rootDisk),
    uptime(node.uptimeSeconds),
  ]);
  const guests = it.guests
    .slice(0, GUESTS_SHOWN)
    .map((guest) => [
      guest.vmid,
      text(guest.name),
      guest.kind === "lxc" ? "container" : "virtual machine",
      text(guest.node),
      guest.status,
    ]);
  const storage = it.storage.map((entry) => [text(entry.id), text(entry.node), text(entry.status), usage(entry.usage)]);
  return [
    cluster,
    h("h3", {}, `Nodes (${nodes.length})`),
    table("Nodes", ["Node", "State", "CPU", "Memory", "Root disk", "Up"], nodes),
    h("h3", {}, `Guests (${it.guests.length})`),
    table("Guests", [{ title: "Number", class: "narrow" }, "Name", "Kind", "Node", "State"], guests),
    it.guests.length > GUESTS_SHOWN && h("p", { class: "hint" }, `The first ${GUESTS_SHOWN} are shown.`),
    h("h3", {}, `Storage (${storage.length})`),
    table("Storage", ["Storage", "Node", "State", "In use"], storage),
  ];
}

function pbs(it) {
  const stores = it.datastores.map((store) => [
    text(store.name),
    usage(store),
    store.mountStatus ?? "–",
    text(store.error ?? "–"),
  ]);
  return [
    h("h3", {}, `Datastores (${stores.length})`),
    table("Datastores", ["Datastore", "In use", "Mount", "Error"], stores),
  ];
}

function pmg(it) {
  const nodes = it.nodes.map((node) => [text(node.name), text(node.role), node.queue?.deferred ?? "–"]);
  const mail = it.mail?.value;
  const figures =
    mail &&
    [
      ["Received", mail.received],
      ["Sent", mail.sent],
      ["Spam", mail.spam],
      ["Viruses", mail.viruses],
      ["Bounces", mail.bounces],
    ].map(([name, count]) => [name, count ?? "–"]);
  const quarantine = it.quarantine?.value;
  return [
    h("h3", {}, `Nodes (${nodes.length})`),
    table("Nodes", ["Node", "Role", { title: "Deferred mails", class: "number" }], nodes),
    figures && h("h3", {}, "Mail today"),
    figures && table("Mail today", ["What", { title: "Mails", class: "number" }], figures),
    quarantine && h("p", {}, `In quarantine: ${quarantine.mails ?? "–"} mails.`),
  ];
}

function availability(it) {
  const words = it.up ? `Up, answered in ${span(it.latency)}` : `Down: ${it.reason?.message ?? "no reason is known"}`;
  return [
    h("p", {}, state(it.up ? "fresh" : "down", untrusted(words))),
    it.status !== undefined && it.status !== null && h("p", {}, `HTTP status ${it.status}`),
  ];
}

const BY_TYPE = { pve, pbs, pmg, http: availability, tcp: availability };

/** @param {{ readAt: string | null, reading: any } | undefined} state */
export function reading(state) {
  if (!state || state.reading === null) return h("p", {}, "Nothing was read yet.");
  const { reading: it, readAt } = state;
  const version = it.version && h("p", {}, "Version ", untrusted(it.version));
  const failed = (it.failedCalls ?? []).map((call) => [text(call.call), untrusted(call.message)]);
  const parts = BY_TYPE[it.type](it).filter(Boolean);
  return h(
    "div",
    {},
    h("p", { class: "hint" }, `Read ${ago(readAt)}.`),
    version || "",
    ...parts,
    it.truncated ? h("p", { class: "hint" }, "The host lists more than a reading holds.") : "",
    failed.length > 0
      ? h(
          "div",
          {},
          h("h3", {}, "Calls that failed without failing the poll"),
          table("Failed calls", ["Call", "Why"], failed),
        )
      : "",
  );
}
