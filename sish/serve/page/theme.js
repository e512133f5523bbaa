// Light or dark: as the system says until the person chooses. theme_first.js reads the choice that is kept here.

import { el } from "./dom.js";

const KEPT = "sish-theme";

export function startTheme(parent) {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const button = el("button", { id: "theme", onclick: () => choose(isDark() ? "light" : "dark") });
  parent.append(button);

  const isDark = () => {
    const chosen = document.documentElement.dataset.theme;
    return chosen ? chosen === "dark" : system.matches;
  };
  function show() {
    button.textContent = isDark() ? "☀ Light" : "☾ Dark";
    button.title = `Switch to the ${isDark() ? "light" : "dark"} theme`;
  }
  function choose(theme) {
    document.documentElement.dataset.theme = theme;
    localStorage.setItem(KEPT, theme);
    show();
  }

  system.addEventListener("change", show);
  show();
}
