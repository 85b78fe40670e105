// One's own password and sessions; and for admins users, tokens and the audit log.

import { Refused, call, get, given, may, post } from "./api.js";
import { by, empty, fill, h, pager, state, table, untrusted } from "./dom.js";
import { ago, date } from "./format.js";
import { form } from "./form.js";
import { ask, done, problem, run } from "./tell.js";

const ADMIN = may("admin");
const ROLES = ["viewer", "operator", "admin"];
const named = (base, name) => `${base}/${encodeURIComponent(name)}`;

async function showMe() {
  const { sessions } = await get("/api/security/me/sessions");
  const mine = (await get("/api/security/me")).session?.id;
  const end = (it) =>
    it.id === mine
      ? h("span", { class: "origin" }, "this one")
      : h("button", { type: "button", class: "small", onclick: () => endSession(it.id) }, "End");
  const rows = sessions.map((it) => [
    date(it.createdAt),
    ago(it.lastUsed),
    it.address ?? "–",
    h("span", { class: "clamp" }, untrusted(it.agent ?? "–")),
    end(it),
  ]);
  fill(
    by("me"),
    table(
      "My sessions",
      [
        { title: "Since", class: "narrow" },
        { title: "Last used", class: "narrow" },
        "Address",
        "Browser",
        { title: "", class: "narrow" },
      ],
      rows,
    ),
  );
}

async function endSession(id) {
  await run(
    by("me-told"),
    () => call("DELETE", named("/api/security/me/sessions", id)),
    () => "The session has ended.",
  );
  await showMe();
}

async function changePassword() {
  const answer = await form({
    title: "Change my password",
    button: "Change it",
    fields: [
      {
        name: "currentPassword",
        label: "Current password",
        type: "password",
        autocomplete: "current-password",
      },
      {
        name: "newPassword",
        label: "New password",
        type: "password",
        autocomplete: "new-password",
        hint: "15 characters or more. Every other session of yours ends.",
      },
    ],
    act: (values) => post("/api/security/me/password", values),
  });
  if (!answer) return;
  document.body.dataset.csrf = answer.session.csrfToken;
  fill(by("me-told"), done("The password is changed; every other session of yours has ended."));
  await showMe();
}

async function showUsers() {
  const { users } = await get("/api/security/users");
  const button = (words, act, more = "") =>
    h("button", { type: "button", class: `small ${more}`, onclick: act }, words);
  const actions = (it) =>
    h(
      "div",
      { class: "row" },
      button("Role…", () => setRole(it)),
      button("Password…", () => setPassword(it)),
      button("Remove…", () => removeUser(it), "danger"),
    );
  fill(
    by("users"),
    table(
      "Users",
      ["Name", "Role", "Added", "Last sign-in", { title: "", class: "narrow" }],
      users.map((it) => [
        untrusted(it.name),
        it.role,
        `${date(it.createdAt)} by ${it.createdBy}`,
        ago(it.lastSignIn),
        actions(it),
      ]),
    ),
  );
}

const role = (value) => ({
  name: "role",
  label: "Role",
  options: ROLES,
  value,
  hint: "A viewer reads; an operator also tests connections; an admin does everything.",
});
const password = {
  name: "password",
  label: "Password",
  type: "password",
  autocomplete: "new-password",
  hint: "15 characters or more.",
};
const reason = { name: "reason", label: "Reason (optional)", optional: true };

async function user(question, words) {
  const answer = await form(question);
  if (answer) fill(by("users-told"), done(words));
  await showUsers();
}

const addUser = () =>
  user(
    {
      title: "Add a user",
      button: "Add",
      fields: [{ name: "name", label: "Name" }, role("viewer"), password, reason],
      act: (values) => post("/api/security/users", values),
    },
    "The user is added.",
  );
const setRole = ({ name, role: now }) =>
  user(
    {
      title: `Role of ${name}`,
      what: "Every session of theirs ends.",
      button: "Set it",
      fields: [role(now), reason],
      act: (values) => call("PUT", `${named("/api/security/users", name)}/role`, values),
    },
    `The role of ${name} is set.`,
  );
const setPassword = ({ name }) =>
  user(
    {
      title: `Password of ${name}`,
      what: "Every session of theirs ends.",
      button: "Set it",
      fields: [password, reason],
      act: (values) => call("PUT", `${named("/api/security/users", name)}/password`, values),
    },
    `The password of ${name} is set.`,
  );

async function removeUser({ name }) {
  await ask({
    title: `Remove ${name}?`,
    what: "Their sessions end at once. What they did stays in the audit log.",
    button: "Remove",
    danger: true,
    reason: "optional",
    act: async (why) => {
      await call("DELETE", named("/api/security/users", name), given(why));
      fill(by("users-told"), done(`${name} is removed.`));
    },
  });
  await showUsers();
}

async function showTokens() {
  const { tokens } = await get("/api/security/tokens");
  const revoke = (it) =>
    h(
      "button",
      {
        type: "button",
        class: "small danger",
        onclick: () => revokeToken(it.name),
      },
      "Revoke…",
    );
  const rows = tokens.map((it) => [
    untrusted(it.name),
    it.role,
    it.createdBy,
    it.expiresAt ? date(it.expiresAt) : "never",
    ago(it.lastUsed),
    revoke(it),
  ]);
  fill(
    by("tokens"),
    rows.length === 0
      ? empty("No tokens", "A token lets a program call the API with a role of its own.")
      : table("API tokens", ["Name", "Role", "Made by", "Expires", "Last used", { title: "", class: "narrow" }], rows),
  );
}

async function createToken() {
  const answer = await form({
    title: "Make an API token",
    button: "Make it",
    fields: [
      { name: "name", label: "What it is for" },
      role("viewer"),
      {
        name: "days",
        label: "Valid for how many days",
        value: "90",
        optional: true,
        hint: "Empty: it does not expire.",
      },
      reason,
    ],
    act: ({ days, ...values }) =>
      post("/api/security/tokens", {
        ...values,
        ...(days
          ? {
              expiresAt: new Date(Date.now() + Number(days) * 86_400_000).toISOString(),
            }
          : {}),
      }),
  });
  if (answer)
    fill(
      by("tokens-told"),
      h(
        "div",
        { class: "done", role: "status" },
        "The token is shown this once; keep it now: ",
        h("code", { tabindex: "0" }, answer.token),
      ),
    );
  await showTokens();
}

async function revokeToken(name) {
  await ask({
    title: `Revoke ${name}?`,
    what: "It opens nothing from then on. This cannot be undone.",
    button: "Revoke",
    danger: true,
    reason: "optional",
    act: async (why) => {
      await call("DELETE", named("/api/security/tokens", name), given(why));
      fill(by("tokens-told"), done(`${name} is revoked.`));
    },
  });
  await showTokens();
}

let before = null;
const OUTCOMES = {
  done: "fresh",
  refused: "failing",
  failed: "open",
  unknown: "late",
};

function outcome({ outcome, detail }) {
  const words = outcome === null ? "under way" : detail ? `${outcome}: ${detail}` : outcome;
  return state(OUTCOMES[outcome] ?? "waiting", untrusted(words));
}

async function showAudit() {
  const { entries, next } = await get(`/api/audit?limit=50${before === null ? "" : `&before=${before}`}`);
  const who = (it) => h("span", {}, untrusted(it.actor), it.address && h("span", { class: "hint" }, ` ${it.address}`));
  const rows = entries.map((it) => [
    it.seq,
    date(it.at),
    who(it),
    h("code", {}, it.action),
    untrusted(it.key ?? "–"),
    untrusted(it.reason ?? "–"),
    outcome(it),
  ]);
  fill(
    by("audit"),
    table(
      "Audit log, the newest first",
      [{ title: "Entry", class: "narrow" }, { title: "When", class: "narrow" }, "Who", "What", "On", "Why", "Outcome"],
      rows,
    ),
    pager(before !== null, next, (to) => {
      before = to;
      showAudit().catch(failed("audit-told"));
    }),
  );
}

async function verify() {
  fill(by("audit-told"), h("p", { role: "status" }, "Reading every entry …"));
  await run(
    by("audit-told"),
    () => post("/api/audit/verify"),
    ({ valid, proven, fault }) =>
      valid
        ? done(`All ${proven.entries} entries, up to number ${proven.last}, are as they were written.`)
        : problem(
            new Refused({
              title: "The audit log is not as it was written",
              detail: fault,
            }),
          ),
  );
}

const failed = (place) => (error) => fill(by(place), problem(error));
fill(by("me-actions"), h("button", { type: "button", onclick: changePassword }, "Change my password…"));
showMe().catch(failed("me-told"));
if (ADMIN) {
  for (const id of ["users-card", "tokens-card", "audit-card"]) by(id).hidden = false;
  fill(by("users-actions"), h("button", { type: "button", onclick: addUser }, "Add a user…"));
  fill(by("tokens-actions"), h("button", { type: "button", onclick: createToken }, "Make a token…"));
  fill(
    by("audit-actions"),
    h("button", { type: "button", onclick: verify }, "Verify the chain"),
    h(
      "a",
      {
        class: "button",
        href: "/api/audit?format=jsonl",
        download: "audit.jsonl",
      },
      "Export",
    ),
  );
  showUsers().catch(failed("users-told"));
  showTokens().catch(failed("tokens-told"));
  showAudit().catch(failed("audit-told"));
}
