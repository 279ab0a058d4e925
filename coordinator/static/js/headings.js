// The lines around the figures: state of the run, legends with counts, ranges, switches.

import { $, color, h, segmented, stateChip, swatch } from "./dom.js";
import { duration, integer } from "./format.js";
import { currentLanguage, reasonInWords, t } from "./i18n.js";
import { STACK } from "./peers_chart.js";
import { countOnline, countStates, store } from "./store.js";
import { currentTheme } from "./theme.js";

const TONES = { waiting: "joining", training: "training", stalled: "stalled", finished: "averaging" };
const MARKS = [["checkpoint", "◆", "ink"], ["joined", "▲", "training"], ["left", "▼", "leaving"], ["lost", "✕", "lost"]];

export function showRunState() {
  const { run } = store;
  document.title = `${integer(countOnline())} · ${run.run_id} · ${t("brand")}`;
  $("run-id").textContent = run.run_id;
  const parts = [stateChip(TONES[run.state], run.paused ? t("run_paused") : t(`run_${run.state}`))];
  if (run.started_at) parts.push(`, ${t("up", { age: duration(run.generated_at - run.started_at) })}`);
  if (run.reason && !run.paused) parts.push(`: ${reasonInWords(run.reason)}`);
  document.body.classList.toggle("nobody", countOnline() === 0 && run.state !== "finished");
  $("run-state").replaceChildren(...parts);
  showWarning();
}

// What is wrong, in a line under the header's edge; trouble with the history goes before a split.
export function showWarning(trouble = store.trouble) {
  store.trouble = trouble;
  const text = trouble ? t("failed_load", { why: trouble }) : store.run?.split ? t("split_warning") : "";
  $("warning").hidden = !text;
  $("warning").textContent = text;
}

export function showKeys() {
  const counts = countStates();
  const states = STACK.map((state) =>
    h("span", { class: counts[state] ? "" : "none" }, swatch(color(state)), t(state), h("b", {}, counts[state] ? integer(counts[state]) : "")),
  );
  const marks = MARKS.map(([kind, sign, tone]) => {
    const icon = h("i", { class: "sign" }, sign);
    icon.style.color = `var(--${tone})`;
    return h("span", { class: "none" }, icon, t(`mark_${kind}`));
  });
  $("legend").replaceChildren(...states, h("span", { class: "break" }), ...marks);
  $("loss-key").replaceChildren(...pair("loss", "training_loss"), ...pair("heldout", "heldout_loss"));
  $("rounds-key").replaceChildren(...pair("averaging", "key_group"), ...pair("ink-3", "key_alive"));
}

function pair(tone, word) {
  return [h("span", {}, swatch(`var(--${tone})`), t(word))];
}

export function showRanges(timeWindow) {
  const choices = ["5m", "1h", "24h", "all"].map((key) => [key, t(`range_${key}`)]);
  if (timeWindow.range === "custom") choices.push(["custom", t("range_custom")]);
  segmented($("ranges"), choices, timeWindow.range, t("range"), (key) => timeWindow.choose(key));
}

export function showSwitches() {
  $("language").textContent = t("language_switch");
  $("language").lang = currentLanguage() === "ru" ? "en" : "ru";
  $("theme").textContent = t(currentTheme() === "dark" ? "theme_light" : "theme_dark");
  $("footer-note").textContent = t("footer_note");
}
