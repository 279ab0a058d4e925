// Who gave how many samples, today and over the whole run.

import { ask } from "./api.js";
import { peerColor } from "./batch.js";
import { $, h, segmented } from "./dom.js";
import { compact, percent } from "./format.js";
import { t } from "./i18n.js";

const SHOWN = 12;

let period = "run";
let rows = [];
let total = 0;

export async function loadContributors() {
  const answer = await ask("contributors", { period, limit: SHOWN });
  rows = answer.peers;
  total = answer.samples;
  showContributors();
}

export function showContributors() {
  const choices = ["day", "run"].map((key) => [key, t(`period_${key}`)]);
  segmented($("period"), choices, period, t("contributors"), (key) => {
    period = key;
    loadContributors();
  });
  const most = rows[0]?.samples || 1;
  const items = rows.map((row) => item(row, most));
  $("contributors").replaceChildren(...(items.length ? items : [h("li", { class: "note" }, t("no_contributors"))]));
}

function item(row, most) {
  const bar = h("i", { class: "bar" });
  bar.style.width = `${(row.samples / most) * 100}%`;
  bar.style.background = peerColor(row.peer_id);
  return h(
    "li",
    {},
    h("div", { class: "line" }, h("span", {}, row.name), h("span", { class: "note" }, row.hardware || row.device), h("b", {}, compact(row.samples)), h("span", { class: "share" }, percent(total ? row.samples / total : null))),
    h("div", { class: "track" }, bar),
  );
}
