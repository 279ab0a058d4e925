// Starts the page: language, theme, the live stream or the replay, and what is drawn when.

import { ask } from "./api.js";
import { showAveraging } from "./averaging.js";
import { showBatch } from "./batch.js";
import { showCheckpoints } from "./checkpoints.js";
import { loadContributors, showContributors } from "./contributors.js";
import { $, h } from "./dom.js";
import { loadEvents, showEvents } from "./events.js";
import { showFigures } from "./figures.js";
import { showKeys, showRanges, showRunState, showSwitches, showWarning } from "./headings.js";
import { currentLanguage, setLanguage, translatePage } from "./i18n.js";
import { showJoin, startJoin } from "./join.js";
import { lossData, LossChart, RoundsChart, SpeedChart } from "./line_charts.js";
import { PeersChart } from "./peers_chart.js";
import { showTable, startTable } from "./peers_table.js";
import { Replay } from "./replay.js";
import { applySnapshot, onStatus, tellAgain } from "./store.js";
import { openStream } from "./stream.js";
import { startTheme } from "./theme.js";
import { TimeWindow } from "./time_window.js";
import { Timeline } from "./timeline.js";

const LISTS_EVERY = 5000; // ms; events and contributors are asked for, not streamed

let charts = null;
let timeline = null;
let timeWindow = null;
let replay = null;
let shown = null; // in a replay: the moment shown

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
  const facts = await ask("run");
  makeCharts();
  timeWindow = new TimeWindow(facts, {
    changed: drawCharts,
    failed,
    asking: (span) => timeline.load(span, () => timeWindow.edges).catch(failed),
  });
  onStatus(redraw);
  if (facts.replay) await startReplay(facts);
  else openStream();
  timeWindow.load().catch(failed);
  await loadLists();
  if (!facts.replay) setInterval(loadLists, LISTS_EVERY);
}

function makeCharts() {
  const handlers = { onZoom: (from, to) => timeWindow.zoom(from, to) };
  charts = {
    peers: new PeersChart($("peers-chart"), { ...handlers, onCursor: (time) => timeline?.showCursor(time) }),
    loss: new LossChart($("loss-chart"), handlers),
    speed: new SpeedChart($("speed-chart"), handlers),
    rounds: new RoundsChart($("rounds-chart"), handlers),
  };
  timeline = new Timeline($("timeline"), {
    onCursor: (time) => {
      charts.peers.moveCursor(time);
      timeline.showCursor(time);
    },
  });
  for (const id of ["peers-chart", "loss-chart", "speed-chart", "rounds-chart"]) {
    $(id).addEventListener("dblclick", () => timeWindow.choose("all"));
  }
}

async function startReplay(facts) {
  replay = new Replay(facts, (time) => {
    shown = time;
    dimLater();
    loadEvents(time);
  });
  applySnapshot({ now: facts.newest ?? facts.now, status: await ask("status") });
}

async function loadLists() {
  try {
    await Promise.all([loadEvents(shown), loadContributors()]);
    showWarning(null);
  } catch (error) {
    failed(error);
  }
}

// After each status (`span` undefined), and after each answer of the history for `span`.
function drawCharts(span) {
  const { counts, marks, steps, checkpoints, problems, edges } = timeWindow;
  charts.peers.show(counts, marks, edges);
  charts.speed.show([counts.t, counts.samples_per_second], edges);
  if (span) {
    showAveraging(steps, problems);
    showCheckpoints(checkpoints);
    showRanges(timeWindow);
  } else if (!replay) timeline.follow(edges);
  charts.loss.show(lossData(steps, checkpoints, edges), edges);
  charts.rounds.show([steps.t, steps.peers_alive, steps.group_size], edges);
  dimLater();
}

function redraw() {
  if (!replay) timeWindow.tick();
  showRunState();
  showFigures();
  showKeys();
  showBatch();
  showTable();
  showJoin();
}

function redrawAll() {
  translatePage();
  showSwitches();
  if (!charts) return;
  for (const chart of Object.values(charts)) chart.build();
  showRanges(timeWindow);
  showAveraging(timeWindow.steps, timeWindow.problems);
  showCheckpoints(timeWindow.checkpoints);
  showEvents();
  showContributors();
  timeline.showWords();
  replay?.translate();
  tellAgain();
  drawCharts();
}

// In a replay, what comes after the moment shown lies under a veil.
function dimLater() {
  if (shown === null) return;
  for (const [element, left] of [...chartEdges(shown), timeline.edgeAt(shown)]) {
    const veil = element.querySelector(".later") ?? element.appendChild(h("div", { class: "later" }));
    veil.style.left = `${left}px`;
    veil.hidden = left >= element.clientWidth;
  }
}

function chartEdges(time) {
  return [charts.peers, charts.loss, charts.speed, charts.rounds].map(({ plot }) => [
    plot.over,
    Math.max(0, plot.valToPos(time, "x")),
  ]);
}

// Without an answer at all the stale banner says enough; an answer that is an error is shown.
function failed(error) {
  if (!(error instanceof TypeError)) showWarning(error.message);
}

start().catch(failed);
