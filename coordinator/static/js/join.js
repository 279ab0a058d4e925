// The line that a newcomer types, and the button that copies it.

import { $ } from "./dom.js";
import { t } from "./i18n.js";
import { store } from "./store.js";

export function startJoin() {
  $("copy").addEventListener("click", copy);
}

export function showJoin() {
  const ended = Boolean(store.frozen) || store.run.state === "finished"; // nobody can join that
  $("join").hidden = !store.run.join_line || ended;
  if ($("join-line").textContent !== store.run.join_line) $("join-line").textContent = store.run.join_line;
}

async function copy() {
  const button = $("copy");
  const done = (await viaClipboard()) || viaSelection();
  button.textContent = t(done ? "copied" : "copy_failed");
  setTimeout(() => (button.textContent = t("copy")), 2000);
}

async function viaClipboard() {
  try {
    await navigator.clipboard.writeText(store.run.join_line);
    return true;
  } catch {
    return false; // not a secure context, or not allowed
  }
}

// On plain HTTP from another machine there is no clipboard API; the selection still copies.
function viaSelection() {
  const range = document.createRange();
  range.selectNodeContents($("join-line"));
  const selection = getSelection();
  selection.removeAllRanges();
  selection.addRange(range);
  return document.execCommand("copy");
}
