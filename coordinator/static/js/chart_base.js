// What the charts share: one time axis, one cursor, axes in the page's language and colours.

import { color } from "./dom.js";
import { clock, day, rate } from "./format.js";

// The timeline is drawn to the same left edge and has names there.
export const AXIS_WIDTH = innerWidth < 700 ? 56 : 84;
export const RIGHT_PAD = 12;
const sync = uPlot.sync("time");

// What an empty chart shows.
export function aMinute() {
  return [Date.now() / 1000 - 60, Date.now() / 1000];
}

export function timeAxis(show = true) {
  return {
    stroke: color("ink-3"),
    grid: { stroke: color("line-2"), width: 1 },
    ticks: { show, stroke: color("line"), width: 1, size: 4 },
    font: "11px " + color("font"),
    size: show ? 28 : 6,
    space: 86,
    values: (u, splits, _axis, _space, increment) => splits.map((time) => show && axisLabel(time, increment)),
  };
}

function axisLabel(time, increment) {
  if (increment >= 86400) return day(time);
  const midnight = new Date(time * 1000).getHours() === 0 && new Date(time * 1000).getMinutes() === 0;
  if (midnight && increment >= 60) return day(time);
  return clock(time, increment < 60);
}

// Steps of an axis that counts: there is no half a peer.
const WHOLE = [1, 2, 5].flatMap((n) => [0, 1, 2, 3, 4, 5, 6].map((power) => n * 10 ** power)).sort((a, b) => a - b);

export function valueAxis(format = rate, whole = false) {
  return {
    ...(whole && { incrs: WHOLE }),
    stroke: color("ink-3"),
    grid: { stroke: color("line-2"), width: 1 },
    ticks: { show: false },
    font: "11px " + color("font"),
    size: AXIS_WIDTH,
    space: 34,
    values: (u, splits, _axis, _space, increment) => splits.map((value) => (value === null ? "" : format(value, increment))),
  };
}

export function baseOptions(element, { onZoom, padTop = 8 } = {}) {
  return {
    width: element.clientWidth,
    height: element.clientHeight,
    padding: [padTop, RIGHT_PAD, 0, 0],
    legend: { show: false },
    cursor: {
      sync: { key: sync.key, scales: ["x", null] },
      drag: { x: true, y: false, setScale: false },
      points: { show: false },
      y: false,
    },
    hooks: {
      setSelect: [
        (u) => {
          if (u.select.width < 6) return;
          onZoom?.(u.posToVal(u.select.left, "x"), u.posToVal(u.select.left + u.select.width, "x"));
          u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
        },
      ],
    },
  };
}

export function followSize(element, chart) {
  new ResizeObserver(() => {
    const plot = chart();
    if (plot && element.clientWidth > 0) plot.setSize({ width: element.clientWidth, height: element.clientHeight });
  }).observe(element);
}
