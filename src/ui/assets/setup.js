// Makes the first administrator with the token that the daemon printed.

import { Refused, post } from "./api.js";
import { by, fill } from "./dom.js";
import { problem, run } from "./tell.js";

by("setup").addEventListener("submit", async (event) => {
  event.preventDefault();
  const { token, username: name, password } = Object.fromEntries(new FormData(event.target));
  if (password !== by("again").value) {
    fill(
      by("told"),
      problem(
        new Refused({
          title: "The two passwords differ",
          detail: "type the same one twice",
        }),
      ),
    );
    by("again").focus();
    return;
  }
  const made = await run(by("told"), async () => {
    await post("/api/setup", { token, name, password });
    await post("/api/login", { name, password });
    return true;
  });
  if (made) location.assign("/");
});
