// Checkpoints, newest first, with held-out loss and digest; the best one is marked.

import { $, h } from "./dom.js";
import { fixed, integer, moment } from "./format.js";
import { t } from "./i18n.js";
import { serverNow } from "./store.js";

const SHOWN = 60;

export function showCheckpoints(checkpoints) {
  const best = checkpoints.reduce((low, c) => (c.heldout_loss !== null && (low === null || c.heldout_loss < low) ? c.heldout_loss : low), null);
  const names = [["step", "number"], ["saved", ""], ["heldout", "number"], ["digest", ""]];
  const head = h("tr", {}, names.map(([name, side]) => h("th", { class: `plain ${side}`, scope: "col" }, t(`col_${name}`))));
  const rows = checkpoints.slice(-SHOWN).reverse().map((checkpoint) => row(checkpoint, best));
  if (!rows.length) rows.push(h("tr", {}, h("td", { class: "note", colSpan: 4 }, t("no_checkpoints"))));
  $("checkpoints").replaceChildren(h("thead", {}, head), h("tbody", {}, rows));
}

function row(checkpoint, best) {
  const mark = checkpoint.heldout_loss !== null && checkpoint.heldout_loss === best ? h("span", { class: "tag good" }, t("best")) : "";
  const digest = checkpoint.digest.replace(/^sha256:/, "");
  return h(
    "tr",
    {},
    h("td", { class: "number", title: checkpoint.path }, integer(checkpoint.step)),
    h("td", {}, moment(checkpoint.t, serverNow())),
    h("td", { class: "number" }, mark, fixed(checkpoint.heldout_loss, 3)),
    h("td", {}, h("code", { class: "digest", title: checkpoint.digest }, digest.slice(0, 12))),
  );
}
