// Starts the page: language, theme, stream, and what is redrawn when.

import { $, color, h, segmented, stateChip, swatch } from "./dom.js";
import { ask } from "./api.js";
import { showFigures } from "./figures.js";
import { duration, integer } from "./format.js";
import { currentLanguage, setLanguage, t, translatePage } from "./i18n.js";
import { showJoin, startJoin } from "./join.js";
import { lossData, LossChart, SpeedChart } from "./line_charts.js";
import { PeersChart, STACK } from "./peers_chart.js";
import { showTable, startTable } from "./peers_table.js";
import { countStates, onStatus, store, tellAgain } from "./store.js";
import { openStream } from "./stream.js";
import { currentTheme, startTheme } from "./theme.js";
import { TimeWindow } from "./time_window.js";

let charts = null;
let timeWindow = null;

async function start() {
  startTheme(redrawAll);
  translatePage();
  showSwitches();
  startTable();
  startJoin();
  $("language").addEventListener("click", () => {
    setLanguage(currentLanguage() === "ru" ? "en" : "ru");
    redrawAll();
  });
  charts = {
    peers: new PeersChart($("peers-chart"), { onZoom: zoom }),
    loss: new LossChart($("loss-chart"), { onZoom: zoom }),
    speed: new SpeedChart($("speed-chart"), { onZoom: zoom }),
  };
  for (const chart of Object.values(charts)) chart.plot.over.addEventListener("dblclick", () => timeWindow.choose("all"));
  timeWindow = new TimeWindow(await ask("run"), drawCharts);
  onStatus(redraw);
  openStream();
  await timeWindow.load();
}

function zoom(start, end) {
  timeWindow.zoom(start, end);
}

function drawCharts() {
  const { counts, marks, steps, checkpoints, edges } = timeWindow;
  charts.peers.show(counts, marks, edges);
  charts.loss.show(lossData(steps, checkpoints, edges), edges);
  charts.speed.show([counts.t, counts.samples_per_second], edges);
  showRanges();
}

function redraw() {
  timeWindow.tick();
  showRunState();
  showFigures();
  showLegend();
  showTable();
  showJoin();
}

function redrawAll() {
  translatePage();
  showSwitches();
  if (!charts) return;
  for (const chart of Object.values(charts)) chart.build();
  tellAgain();
}

function showRunState() {
  const { run } = store;
  document.title = `${integer(countOnline())} · ${run.run_id} · ${t("brand")}`;
  $("run-id").textContent = run.run_id;
  const tone = { waiting: "joining", training: "training", stalled: "stalled", finished: "averaging" }[run.state];
  const parts = [stateChip(tone, t(`run_${run.state}`))];
  if (run.started_at) parts.push(` · ${t("up", { age: duration(run.generated_at - run.started_at) })}`);
  if (run.reason) parts.push(` · ${run.reason}`);
  $("run-state").replaceChildren(...parts);
  $("warning").hidden = !run.split;
  $("warning").textContent = t("split_warning");
}

function countOnline() {
  const counts = countStates();
  return Object.entries(counts).reduce((sum, [state, n]) => sum + (state === "lost" ? 0 : n), 0);
}

function showLegend() {
  const counts = countStates();
  const items = STACK.map((state) =>
    h("span", { class: counts[state] ? "" : "none" }, swatch(color(state)), t(state), counts[state] ? h("b", {}, integer(counts[state])) : ""),
  );
  $("legend").replaceChildren(...items);
  $("loss-key").replaceChildren(
    h("span", {}, swatch(color("loss")), t("training_loss")),
    h("span", {}, swatch(color("heldout")), t("heldout_loss")),
  );
}

function showRanges() {
  const choices = ["5m", "1h", "24h", "all"].map((key) => [key, t(`range_${key}`)]);
  if (timeWindow.range === "custom") choices.push(["custom", t("range_custom")]);
  segmented($("ranges"), choices, timeWindow.range, t("range"), (key) => timeWindow.choose(key));
}

function showSwitches() {
  $("language").textContent = t("language_switch");
  $("language").lang = currentLanguage() === "ru" ? "en" : "ru";
  $("theme").textContent = t(currentTheme() === "dark" ? "theme_light" : "theme_dark");
  $("footer-note").textContent = t("footer_note");
}

start();
