// Samples toward the target batch, split by peer: the bar fills, the swarm takes a step, it empties.

import { $, h, swatch } from "./dom.js";
import { integer, percent } from "./format.js";
import { t } from "./i18n.js";
import { store } from "./store.js";

const NAMED = 14;

// Each peer keeps its colour everywhere on the page, in every browser.
export function peerColor(id) {
  let hash = 0;
  for (const letter of id) hash = (hash * 31 + letter.codePointAt(0)) >>> 0;
  const lightness = 0.62 + ((hash >>> 9) % 4) * 0.04;
  return `oklch(${lightness} 0.1 ${hash % 360})`;
}

export function showBatch() {
  const { run } = store;
  $("batch").parentElement.hidden = run.state === "finished"; // there is no next step
  const parts = [...store.peers.values()]
    .filter((peer) => peer.samples_accumulated > 0)
    .map((peer) => ({ name: peer.name, color: peerColor(peer.peer_id), samples: peer.samples_accumulated }))
    .sort((a, b) => b.samples - a.samples);
  const known = parts.reduce((sum, part) => sum + part.samples, 0);
  const have = Math.max(run.samples_accumulated, known);
  const named = parts.slice(0, NAMED);
  const rest = have - named.reduce((sum, part) => sum + part.samples, 0);
  if (rest > 0) named.push({ name: t("others"), color: "var(--ink-3)", samples: rest });
  const scale = Math.max(run.target_batch_size, have);
  $("batch-note").textContent = t("batch_note", { have: integer(have), target: integer(run.target_batch_size) });
  const label = `${t("target_batch")}: ${percent(have / run.target_batch_size)}`;
  const bar = h("div", { class: "batch-bar", role: "img", "aria-label": label }, named.map((part) => segment(part, scale)));
  $("batch").replaceChildren(bar, h("div", { class: "key" }, named.map(keyItem)));
}

function segment(part, scale) {
  const element = h("i", { title: `${part.name}: ${integer(part.samples)}` });
  element.style.width = `${(part.samples / scale) * 100}%`;
  element.style.background = part.color;
  return element;
}

function keyItem(part) {
  return h("span", {}, swatch(part.color), part.name, h("b", {}, integer(part.samples)));
}
