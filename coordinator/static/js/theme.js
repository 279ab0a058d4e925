// Light or dark: as the system has it until somebody chooses.

import { $ } from "./dom.js";

const system = matchMedia("(prefers-color-scheme: dark)");

export function currentTheme() {
  return document.documentElement.dataset.theme;
}

export function startTheme(changed) {
  const apply = () => {
    document.documentElement.dataset.theme = localStorage.getItem("artel-theme") ?? (system.matches ? "dark" : "light");
  };
  apply();
  system.addEventListener("change", () => {
    apply();
    changed();
  });
  $("theme").addEventListener("click", () => {
    localStorage.setItem("artel-theme", currentTheme() === "dark" ? "light" : "dark");
    apply();
    changed();
  });
}
