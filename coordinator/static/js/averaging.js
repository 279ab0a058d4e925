// How averaging goes: group against peers alive, duration, what was received, what failed and why.

import { $, h } from "./dom.js";
import { bytes, clock, DASH, day, duration, fixed, integer, percent } from "./format.js";
import { t } from "./i18n.js";

export function showAveraging(steps, problems) {
  const last = steps.t.length - 1;
  $("averaging-figures").replaceChildren(...(last < 0 ? [h("p", { class: "note" }, t("no_rounds"))] : figures(steps, last)));
  $("rounds-chart").hidden = $("rounds-key").hidden = last < 0;
  const empty = h("li", { class: "note" }, last < 0 ? "" : t("all_whole"));
  $("round-problems").replaceChildren(...(problems.length ? problems.map(problem) : [empty]));
}

function figures(steps, last) {
  const sum = (name) => steps[name].reduce((total, value) => total + (value ?? 0), 0);
  const count = sum("steps");
  const alive = steps.peers_alive[last];
  return [
    figure(t("group_of"), integer(Math.round(steps.group_size[last])), alive === null ? "" : t("of_alive", { n: integer(Math.round(alive)) })),
    figure(t("last_round"), seconds(steps.seconds[last]), ""),
    figure(t("received"), percent(steps.received_fraction[last]), ""),
    figure(t("bytes_per_step"), sum("bytes") ? bytes(sum("bytes")) : DASH, t("in_stretch")),
    figure(t("partial_rounds"), integer(sum("partial_rounds")), percent(sum("partial_rounds") / count)),
    figure(t("failed_rounds"), integer(sum("failed_rounds")), t("in_stretch")),
  ];
}

function seconds(value) {
  if (value === null) return DASH;
  return value < 10 ? `${fixed(value, 1)} ${t("units").split(" ")[0]}` : duration(value);
}

function figure(title, value, detail) {
  return h("dl", {}, h("dt", {}, title), h("dd", {}, value, detail ? h("small", {}, ` ${detail}`) : ""));
}

function problem(row) {
  const parts = [];
  if (row.received_fraction !== null && row.received_fraction < 0.999) {
    parts.push(t("partial_reason", { percent: percent(row.received_fraction), n: row.group_size }));
  }
  if (row.failed_rounds) parts.push(t("failed_reason", { n: row.failed_rounds }));
  if (row.reason) parts.push(row.reason);
  const when = h("time", { title: `${day(row.t)}, ${clock(row.t)}` }, t("step_n", { n: integer(row.global_step) }));
  return h("li", {}, when, h("span", {}, parts.join("; ")));
}
