// Calls of the daemon's API from a signed-in page, and what a refused one says.

/** A call that was not carried out, in the daemon's own words. */
export class Refused extends Error {
  /** @param {{ title?: string, detail?: string, status?: number, code?: string, errors?: { at: string, detail: string }[] }} problem */
  constructor(problem, retryAfter = null) {
    super(problem.detail || problem.title || "the call failed");
    this.title = problem.title || "The call failed";
    this.status = problem.status ?? 0;
    this.code = problem.code ?? "unknown";
    this.errors = problem.errors ?? [];
    this.retryAfter = retryAfter;
  }
}

const UNREACHABLE = {
  title: "The daemon cannot be reached",
  detail: "check that it runs and that this machine can reach it, then try again",
};

/**
 * @param {"GET" | "POST" | "PUT" | "DELETE"} method
 * @param {string} path
 * @param {unknown} [body] sent as JSON
 */
export async function call(method, path, body, headers = {}) {
  const csrf = document.body.dataset.csrf;
  const init = { method, headers: { Accept: "application/json", ...headers } };
  if (method !== "GET" && csrf) init.headers["X-CSRF-Token"] = csrf;
  if (body !== undefined) {
    init.headers["Content-Type"] = "application/json";
    init.body = JSON.stringify(body);
  }
  let answer;
  try {
    answer = await fetch(path, init);
  } catch {
    throw new Refused(UNREACHABLE);
  }
  const text = await answer.text();
  let value = null;
  try {
    value = text === "" ? null : JSON.parse(text);
  } catch {
    if (answer.ok)
      throw new Refused({
        title: "The answer could not be read",
        detail: "reload the page; if that does not help, see the daemon's log",
      });
  }
  if (answer.ok) return value;
  if (answer.status === 401 && value?.code === "unauthorized" && document.body.dataset.user)
    location.assign(`/login?next=${encodeURIComponent(location.pathname)}`);
  throw new Refused(
    value ?? {
      title: `The daemon answered ${answer.status}`,
      status: answer.status,
    },
    answer.headers.get("Retry-After"),
  );
}

export const get = (path) => call("GET", path);
export const post = (path, body = {}) => call("POST", path, body);

/** The body that gives a reason: empty where none is given. */
export const given = (reason) => (reason === "" ? {} : { reason });

/** The path of a call about an instance. */
export const about = (base, key, verb = "") => `${base}/${encodeURIComponent(key)}${verb && `/${verb}`}`;

/** Whether the one who is signed in may do what needs `role`. */
export function may(role) {
  const order = ["viewer", "operator", "admin"];
  return order.indexOf(document.body.dataset.role ?? "") >= order.indexOf(role);
}
