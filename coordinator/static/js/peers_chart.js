// The number of peers over time: stepped areas, one a state, stacked; with marks for what happened.

import { color, h, swatch } from "./dom.js";
import { clock, day, integer } from "./format.js";
import { t } from "./i18n.js";
import { countOnline, serverNow, store } from "./store.js";
import { drawMarks, MARK_KINDS, MARKS_HEIGHT } from "./event_marks.js";
import { aMinute, baseOptions, followSize, timeAxis, valueAxis } from "./chart_base.js";

// From the bottom up: those who work first, so that they have a level base; who is leaving or lost last, above
// the line of those who are there.
export const STACK = ["training", "averaging", "syncing", "joining", "stalled", "leaving", "lost"];

export class PeersChart {
  constructor(element, { onZoom, onCursor }) {
    this.element = element;
    this.onZoom = onZoom;
    this.onCursor = onCursor;
    this.counts = null;
    this.window = aMinute();
    this.marks = [];
    this.tip = h("div", { class: "tip", hidden: true });
    followSize(element, () => this.plot);
    element.tabIndex = 0;
    element.addEventListener("keydown", (event) => {
      const direction = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!direction) return;
      event.preventDefault();
      this.walk(direction);
    });
    element.addEventListener("blur", () => {
      this.pointed = false;
      this.moveCursor(null);
    });
    this.build();
  }

  build() {
    this.plot?.destroy();
    const options = baseOptions(this.element, { onZoom: this.onZoom, padTop: MARKS_HEIGHT });
    const stepped = uPlot.paths.stepped({ align: 1 });
    const area = (state) => ({ fill: color(state), stroke: color(state), width: 0, paths: stepped, points: { show: false } });
    this.plot = new uPlot(
      {
        ...options,
        scales: { x: { time: true, range: () => this.window }, y: { range: (u, low, high) => [0, nice(high)] } },
        axes: [timeAxis(), valueAxis(integer, true)],
        series: [{}, ...STACK.map(area), { stroke: color("ink-2"), width: 1, paths: stepped, points: { show: false } }],
        bands: STACK.slice(1).map((_, i) => ({ series: [i + 2, i + 1] })),
        hooks: {
          ...options.hooks,
          draw: [(u) => drawMarks(u, this.marks, this.window)],
          setCursor: [(u) => this.showTip(u)],
        },
      },
      [[], ...STACK.map(() => []), []],
      this.element,
    );
    this.plot.over.append(this.tip);
    this.plot.over.addEventListener("mouseenter", () => (this.pointed = true));
    this.plot.over.addEventListener("mouseleave", () => {
      this.pointed = false;
      this.tip.hidden = true;
      this.onCursor?.(null);
    });
    if (this.counts) this.show(this.counts, this.marks, this.window);
  }

  show(counts, marks, window) {
    this.counts = counts;
    this.marks = marks;
    this.window = window;
    this.element.setAttribute("role", "img");
    this.element.setAttribute("aria-label", t("peers_chart_label", { n: integer(countOnline()) }));
    this.plot.setData(stacked(counts, store.run ? Math.min(window[1], serverNow()) : window[1]));
  }

  // The cursor of all charts to `time`; null takes it away.
  moveCursor(time) {
    const left = time === null ? -10 : this.plot.valToPos(time, "x");
    this.plot.setCursor({ left, top: time === null ? -10 : 10 }, true, true);
  }

  // Left and right arrows walk through the points, with the tip.
  walk(direction) {
    const at = this.plot.cursor.left >= 0 ? this.plot.posToVal(this.plot.cursor.left, "x") : this.window[1];
    const place = previousIndex(this.counts.t, at) + direction;
    const time = this.counts.t[Math.max(0, Math.min(this.counts.t.length - 1, place))];
    if (time === undefined) return;
    this.pointed = true;
    this.moveCursor(time + this.counts.bucket / 2);
  }

  showTip(u) {
    const { left, idx } = u.cursor;
    const t0 = left >= 0 ? u.posToVal(left, "x") : null;
    this.onCursor?.(t0);
    if (t0 === null || idx === null || !this.counts?.t.length || !this.pointed) {
      this.tip.hidden = true;
      return;
    }
    const i = Math.min(previousIndex(this.counts.t, t0), this.counts.t.length - 1);
    if (i < 0 || this.counts.training[i] === null) {
      this.tip.hidden = true;
      return;
    }
    this.tip.replaceChildren(...this.tipRows(i, u));
    this.tip.hidden = false;
    const right = left > u.over.clientWidth / 2;
    this.tip.style.left = right ? "" : `${left + 14}px`;
    this.tip.style.right = right ? `${u.over.clientWidth - left + 14}px` : "";
    this.tip.style.top = "6px";
  }

  tipRows(i, u) {
    const { counts } = this;
    const rows = [h("div", { class: "when" }, `${day(counts.t[i])}, ${clock(counts.t[i], counts.bucket < 60)}`)];
    for (const state of [...STACK].reverse()) {
      const value = counts[state][i];
      if (value >= 0.05) rows.push(h("div", { class: "row" }, swatch(color(state)), t(state), h("b", {}, about(value))));
    }
    const [low, high] = [counts.online_min[i], counts.online_max[i]];
    const range = low === high ? integer(low) : `${integer(low)}–${integer(high)}`;
    rows.push(h("div", { class: "row" }, t("total"), h("b", {}, range)));
    const near = (u.posToVal(6, "x") - u.posToVal(0, "x")) || 1;
    const at = u.posToVal(u.cursor.left, "x");
    for (const kind of MARK_KINDS) {
      const n = this.marks.filter((m) => m.kind === kind && Math.abs(m.t - at) <= near).reduce((sum, m) => sum + m.n, 0);
      if (n) rows.push(h("div", { class: "row mark-row" }, t(`mark_${kind}`), h("b", {}, integer(n))));
    }
    return rows;
  }
}

function about(value) {
  return Number.isInteger(value) || value >= 10 ? integer(Math.round(value)) : value.toFixed(1);
}

function nice(high) {
  if (!high || high < 4) return 4;
  const step = 10 ** Math.floor(Math.log10(high)) / 2;
  return Math.ceil((high * 1.04) / step) * step;
}

export function previousIndex(times, time) {
  let low = 0;
  let high = times.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (times[middle] <= time) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

// Columns of counts to cumulative series; the newest value lasts until `end`.
function stacked(counts, end) {
  const times = [...counts.t];
  const layers = STACK.map((state) => [...counts[state]]);
  const last = times.length - 1;
  if (last >= 0 && end > times[last] && end - times[last] < 3 * counts.bucket + 10) {
    times.push(end);
    for (const layer of layers) layer.push(layer[last]);
  }
  for (let k = 1; k < layers.length; k += 1) {
    layers[k] = layers[k].map((value, i) => (value === null ? null : value + layers[k - 1][i]));
  }
  return [times, ...layers, layers[STACK.indexOf("leaving") - 1]];
}
