// The instances as they are configured: add with a guide, test, pin a certificate, edit, remove.

import { Refused, about, call, get, given, may, post } from "./api.js";
import { findNodes } from "./cluster.js";
import { modal } from "./dialog.js";
import { by, empty, fill, h, table, untrusted } from "./dom.js";
import { field, values } from "./form.js";
import { ask, done, problem, refusedEdit } from "./tell.js";
import { tested } from "./tested.js";

const NODES = "/api/config/nodes";
const ADMIN = may("admin");
const TYPES = [
  ["pve", "Proxmox VE"],
  ["pbs", "Proxmox Backup Server"],
  ["pmg", "Proxmox Mail Gateway"],
  ["http", "HTTP endpoint"],
  ["tcp", "TCP endpoint"],
];
const PAGE = 1_000;
let nodes = [];

async function load() {
  nodes = [];
  let next = null;
  do {
    const answer = await get(`${NODES}?limit=${PAGE}${next === null ? "" : `&after=${encodeURIComponent(next)}`}`);
    nodes.push(...answer.nodes);
    next = answer.next;
  } while (next !== null);
  show();
  const { refusedEdits } = await get("/api/system/settings");
  fill(by("refused"), ...refusedEdits.map(refusedEdit));
}

const address = ({ type, url, host, port }) => (type === "tcp" ? `${host}:${port}` : url) ?? "–";

/** The file that it stands in, and why it cannot be edited if another tool keeps that. */
const source = ({ source, editable }) =>
  h(
    "span",
    editable ? {} : { title: "Another tool keeps this file; change the instance there" },
    untrusted(source),
    !editable && h("span", { class: "hint" }, " read-only"),
  );

const provided = ({ key, source }) =>
  h(
    "div",
    { class: "problem" },
    h("strong", {}, `${key} cannot be edited here`),
    ` It stands in ${source}, which another tool keeps; change it there.`,
  );

function show() {
  const wanted = by("search").value.trim().toLowerCase();
  const shown = nodes
    .filter(({ key, source, instance }) =>
      [key, source, instance.displayName ?? ""].some((text) => text.toLowerCase().includes(wanted)),
    )
    .slice(0, PAGE);
  const actions = (node) =>
    h(
      "div",
      { class: "row" },
      may("operator") && h("button", { type: "button", class: "small", onclick: () => testStored(node) }, "Test"),
      ADMIN &&
        node.instance.type === "pve" &&
        h("button", { type: "button", class: "small", onclick: () => cluster(node) }, "Cluster nodes…"),
      ADMIN && node.editable && h("button", { type: "button", class: "small", onclick: () => edit(node) }, "Edit…"),
      ADMIN &&
        node.editable &&
        h(
          "button",
          {
            type: "button",
            class: "small danger",
            onclick: () => remove(node),
          },
          "Remove…",
        ),
    );
  const row = (node) => [
    h(
      "a",
      { href: `/instances/${encodeURIComponent(node.key)}`, dir: "auto" },
      node.instance.displayName ?? node.instance.name,
    ),
    h("code", {}, node.key),
    untrusted(address(node.instance)),
    node.instance.enabled === false ? "no" : "yes",
    source(node),
    actions(node),
  ];
  by("count").textContent = `${nodes.length} ${nodes.length === 1 ? "instance is" : "instances are"} configured.`;
  if (nodes.length === 0)
    return fill(
      by("list"),
      empty("No instances yet", "Add the first one: its address and a token that may read are all it takes."),
    );
  fill(
    by("list"),
    shown.length === 0
      ? empty("No instance matches")
      : table(
          "Instances",
          ["Name", "Key", "Address", "Polled", "File", { title: "", class: "narrow" }],
          shown.map(row),
        ),
    shown.length === PAGE && h("p", { class: "hint" }, `The first ${PAGE} are shown.`),
  );
}

const cluster = ({ key }) =>
  findNodes(NODES, key, (keys) => {
    fill(by("told"), done(`${keys.join(", ")} ${keys.length === 1 ? "is" : "are"} added and polled from now on.`));
    load().catch((error) => fill(by("told"), problem(error)));
  });

async function testStored({ key }) {
  fill(by("told"), h("p", { role: "status" }, `Testing ${key} …`));
  try {
    fill(by("told"), h("div", {}, h("h2", {}, key), tested(await post(`${NODES}/test-connection`, { key }))));
  } catch (error) {
    fill(by("told"), problem(error));
  }
}

/** What few need, out of the way of the rest. */
const further = (fields) =>
  h("details", { open: fields.some(({ value }) => value) }, h("summary", {}, "Further settings"), ...fields.map(field));

/** The fields of one type, and those that few need. A secret that is set and left empty stays as it is. */
function fields(type, before) {
  const kept = (it) => it && "Empty: it stays as it is.";
  const common = [
    {
      name: "name",
      label: "Name",
      value: before?.name,
      hint: "With the type it is the key; it cannot be changed later.",
    },
  ];
  const rest = [
    {
      name: "displayName",
      label: "Name that people see",
      value: before?.displayName,
      optional: true,
      hint: "Empty: the name.",
    },
    {
      name: "interval",
      label: "Fixed interval",
      value: before?.interval,
      optional: true,
      hint: "Such as 30s. Empty: it adapts.",
    },
    {
      name: "timeout",
      label: "Timeout",
      value: before?.timeout,
      optional: true,
      hint: "Such as 5s. Empty: that of the type.",
    },
  ];
  const fingerprint = {
    name: "fingerprint",
    label: "Pinned certificate",
    value: before?.tls?.fingerprint,
    optional: true,
    hint: "Its SHA-256 fingerprint. Empty: an authority that the system trusts must have signed it. Test the connection to see it.",
  };
  if (type === "tcp")
    return [
      [
        ...common,
        { name: "host", label: "Host", value: before?.host },
        { name: "port", label: "Port", value: before?.port, type: "number" },
      ],
      rest,
    ];
  if (type === "http") {
    return [
      [
        ...common,
        {
          name: "url",
          label: "Address",
          value: before?.url,
          hint: "Such as https://example.org/health",
        },
        fingerprint,
      ],
      [
        {
          name: "expectedStatus",
          label: "Status that means up",
          value: before?.expectedStatus,
          optional: true,
          hint: "Such as 200-299.",
        },
        {
          name: "bodyContains",
          label: "Text that the answer must hold",
          value: before?.bodyContains,
          optional: true,
        },
        ...rest,
      ],
    ];
  }
  const members = {
    name: "members",
    label: "Further members of the cluster",
    value: before?.members?.join(" "),
    optional: true,
    hint: "Addresses with blanks between them, tried when one cannot be reached.",
  };
  return [
    [
      ...common,
      {
        name: "url",
        label: "Address",
        value: before?.url,
        hint: `Such as https://10.0.0.1:${type === "pbs" ? 8007 : 8006}`,
      },
      ...(before?.auth?.user
        ? [
            { name: "user", label: "User", value: before.auth.user },
            {
              name: "password",
              label: "Password",
              type: "password",
              optional: true,
              hint: kept(before),
            },
          ]
        : [
            {
              name: "token",
              label: "Token",
              value: before?.auth?.tokenId,
              hint: `As the host shows it: USER@REALM!ID${type === "pve" ? "=" : ":"}SECRET. ${kept(before) ? "Without the secret it stays as it is." : ""}`,
            },
          ]),
      fingerprint,
    ],
    [members, ...rest],
  ];
}

/** `USER@REALM!ID=SECRET` or `USER@REALM!ID:SECRET`, in its two parts. */
function token(text, before) {
  const parts = text.match(/^(?:P\w+APIToken=)?([^!\s]+![^=:\s]+)[=:](\S+)$/);
  if (parts) return { tokenId: parts[1], secret: parts[2] };
  if (before?.auth?.tokenId) return { tokenId: text, secret: { set: true } };
  throw new Refused({
    title: "The token is not whole",
    detail: "paste it as the host shows it, with its secret: USER@REALM!ID=SECRET",
  });
}

function entry(type, form, before) {
  const { token: pasted, user, password, members, fingerprint, port, ...plain } = values(form);
  const kept = before
    ? Object.fromEntries(
        Object.entries(before).filter(
          ([name]) =>
            !["displayName", "interval", "timeout", "members", "expectedStatus", "bodyContains"].includes(name),
        ),
      )
    : {};
  const instance = { ...kept, type, ...plain };
  if (pasted) instance.auth = token(pasted, before);
  if (user) instance.auth = { user, password: password ?? { set: true } };
  if (members) instance.members = members.split(/[\s,]+/);
  if (port) instance.port = Number(port);
  if (fingerprint) instance.tls = { fingerprint };
  else if (before?.tls?.fingerprint) delete instance.tls;
  return instance;
}

/** Adds an instance, or edits `node`. */
function edit(node) {
  const before = node?.instance;
  const told = h("div");
  const inner = h("div");
  const type = h(
    "select",
    { id: "type", disabled: Boolean(node), onchange: () => draw() },
    ...TYPES.map(([code, words]) => h("option", { value: code, selected: code === before?.type }, words)),
  );
  const draw = () => {
    const [first, rest] = fields(type.value, before);
    fill(inner, ...first.map(field), further(rest));
    if (node) inner.querySelector("#field-name").readOnly = true;
  };
  const pin = (fingerprint) => {
    inner.querySelector("#field-fingerprint").value = fingerprint;
    fill(told, done("Pinned in this form; test the connection once more."));
  };
  const guarded = async (act) => {
    try {
      await act();
    } catch (error) {
      fill(told, problem(error));
    }
  };
  const test = () =>
    guarded(async () => {
      if (!form.reportValidity()) return;
      fill(told, h("p", { role: "status" }, "Testing …"));
      fill(
        told,
        tested(
          await post(`${NODES}/test-connection`, {
            instance: entry(type.value, form, before),
          }),
          pin,
        ),
      );
    });
  draw();
  const { form, dialog } = modal({
    title: node ? `Edit ${node.key}` : "Add an instance",
    body: [h("label", { for: "type" }, "Type"), type, inner, told],
    buttons: [
      h("button", { type: "button", onclick: test }, "Test the connection"),
      h("button", { type: "submit", class: "primary" }, node ? "Apply" : "Add"),
    ],
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    guarded(async () => {
      const instance = entry(type.value, form, before);
      const answer = node
        ? await call("PUT", about(NODES, node.key), { instance }, { "If-Match": `"${node.tag}"` })
        : await post(NODES, { instance });
      dialog.close();
      fill(
        by("told"),
        done(
          node
            ? `${answer.key} is changed; nothing else was touched.`
            : `${answer.key} is added and polled from now on.`,
        ),
      );
      await load();
    });
  });
}

async function remove({ key, tag }) {
  await ask({
    title: `Remove ${key}?`,
    what: "It is no longer polled, and its reading, history and metrics go. The change is a version of the configuration: Updates → Restore brings the instance back, credentials included.",
    button: "Remove",
    danger: true,
    reason: "optional",
    act: async (reason) => {
      await call("DELETE", about(NODES, key), given(reason), {
        "If-Match": `"${tag}"`,
      });
      fill(by("told"), done(`${key} is removed.`));
    },
  });
  await load();
}

/** Links of other pages lead here with what is to be done. */
function asked() {
  const wanted = new URLSearchParams(location.search);
  history.replaceState(null, "", location.pathname);
  if (wanted.has("add") && ADMIN) edit();
  for (const [name, act] of [
    ["edit", edit],
    ["remove", remove],
  ]) {
    const node = nodes.find(({ key }) => key === wanted.get(name));
    if (!node || !ADMIN) continue;
    if (node.editable) act(node);
    else fill(by("told"), provided(node));
  }
}

by("search").addEventListener("input", show);
if (ADMIN)
  fill(by("actions"), h("button", { type: "button", class: "primary", onclick: () => edit() }, "Add an instance…"));
load()
  .then(asked)
  .catch((error) => fill(by("told"), problem(error)));
