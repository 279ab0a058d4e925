// Loss (training and held-out) and samples per second, on the time axis of the peers' chart.

import { color } from "./dom.js";
import { fixed, integer, rate } from "./format.js";
import { t } from "./i18n.js";
import { aMinute, baseOptions, followSize, timeAxis, valueAxis } from "./chart_base.js";

const DOTS_AT_MOST = 60;

class LineChart {
  constructor(element, { onZoom }) {
    this.element = element;
    this.onZoom = onZoom;
    this.data = null;
    this.window = aMinute();
    followSize(element, () => this.plot);
    this.build();
  }

  build() {
    this.plot?.destroy();
    const options = baseOptions(this.element, { onZoom: this.onZoom });
    this.plot = new uPlot(
      {
        ...options,
        scales: { x: { time: true, range: () => this.window }, y: { range: this.range } },
        axes: [timeAxis(this.labelled), valueAxis(this.format, this.whole)],
        series: [{}, ...this.series()],
      },
      this.data ?? [[], ...this.series().map(() => [])],
      this.element,
    );
  }

  get labelled() {
    return true;
  }

  get emptyWord() {
    return "";
  }

  get whole() {
    return false;
  }

  show(data, window) {
    this.data = data;
    this.window = window;
    this.plot.setData(data);
    this.element.dataset.empty = data[0].length ? "" : this.emptyWord;
  }
}

export class LossChart extends LineChart {
  get emptyWord() {
    return t("no_steps");
  }

  get labelled() {
    return false; // the chart below has the same axis
  }

  format(value, increment) {
    return fixed(value, increment >= 1 ? 0 : increment >= 0.1 ? 1 : 2);
  }

  range(u, low, high) {
    if (low === null) return [0, 1];
    const pad = Math.max(0.05, (high - low) * 0.12);
    return [low - pad, high + pad];
  }

  series() {
    return [
      { stroke: color("loss"), width: 1.5, points: { show: false }, spanGaps: true },
      {
        stroke: color("heldout"),
        width: 1.25,
        dash: [4, 4],
        spanGaps: true,
        points: {
          show: (u) => u.data[2].reduce((n, value) => n + (value !== null), 0) <= DOTS_AT_MOST,
          ...{ size: 6, fill: color("heldout"), stroke: color("card"), width: 1 },
        },
      },
    ];
  }
}

export class SpeedChart extends LineChart {
  format(value) {
    return rate(value);
  }

  range(u, low, high) {
    return [0, (high || 1) * 1.1];
  }

  series() {
    return [{ stroke: color("speed"), fill: `color-mix(in srgb, ${color("speed")} 14%, transparent)`, width: 1.25, points: { show: false } }];
  }
}

// Size of the groups against the peers alive.
export class RoundsChart extends LineChart {
  get whole() {
    return true;
  }

  format(value) {
    return integer(value);
  }

  range(u, low, high) {
    return [0, Math.max(2, (high || 1) * 1.1)];
  }

  series() {
    const stepped = uPlot.paths.stepped({ align: 1 });
    return [
      { stroke: color("ink-3"), fill: color("line-2"), width: 1, paths: stepped, points: { show: false } },
      { stroke: color("averaging"), width: 1.5, paths: stepped, points: { show: false } },
    ];
  }
}

// Steps and checkpoints come at different moments: one axis for both, null where a series has no value.
export function lossData(steps, checkpoints, [start, end]) {
  const inside = checkpoints.filter((c) => c.t >= start && c.t <= end && c.heldout_loss !== null);
  const merged = [
    ...steps.t.map((time, i) => [time, steps.loss[i], null]),
    ...inside.map((c) => [c.t, null, c.heldout_loss]),
  ].sort((a, b) => a[0] - b[0]);
  return [merged.map((row) => row[0]), merged.map((row) => row[1]), merged.map((row) => row[2])];
}
