// Signs in, and goes on to where one wanted to be.

import { post } from "./api.js";
import { by } from "./dom.js";
import { run } from "./tell.js";

/** Only a path of this daemon: a link must not be able to lead a signed-in user elsewhere. */
function next() {
  const wanted = new URLSearchParams(location.search).get("next") ?? "/";
  const target = new URL(wanted, location.origin);
  return target.origin === location.origin ? target.pathname : "/";
}

by("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = event.target.querySelector("button");
  button.disabled = true;
  const { username: name, password } = Object.fromEntries(new FormData(event.target));
  const signedIn = await run(by("told"), async () => {
    await post("/api/login", { name, password });
    return true;
  });
  if (signedIn) location.assign(next());
  button.disabled = false;
});
