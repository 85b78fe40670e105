// What every page of a signed-in user has: the theme and the way out.

import { post } from "./api.js";
import { by } from "./dom.js";
import { problem } from "./tell.js";

by("theme").addEventListener("click", () => {
  const { dataset } = document.documentElement;
  const isDark = dataset.theme ? dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  dataset.theme = isDark ? "light" : "dark";
  localStorage.setItem("theme", dataset.theme);
});

by("sign-out").addEventListener("click", async () => {
  try {
    await post("/api/logout");
    location.assign("/login");
  } catch (error) {
    by("main").prepend(problem(error));
  }
});
