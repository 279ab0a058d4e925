// Marks above the peers' chart, a lane for each kind: signs while they are few, small bars of how many when not.

import { color } from "./dom.js";

export const MARK_KINDS = ["checkpoint", "joined", "left", "lost"];
const LANE = 11;
export const MARKS_HEIGHT = MARK_KINDS.length * LANE + 4;

const TONES = { checkpoint: "ink", joined: "training", left: "leaving", lost: "lost" };
const SIGNS_AT_MOST = 60; // of one kind
const FEW = 20;
const LINES_AT_MOST = 30; // of checkpoints, through the chart

export function drawMarks(u, marks, [start, end]) {
  const { ctx } = u;
  const ratio = devicePixelRatio;
  ctx.save();
  MARK_KINDS.forEach((kind, lane) => {
    const own = marks.filter((mark) => mark.kind === kind && mark.t >= start && mark.t <= end);
    const bottom = u.bbox.top - ((MARK_KINDS.length - lane - 1) * LANE + 3) * ratio;
    const places = own.map((mark) => [Math.round(u.valToPos(mark.t, "x", true)), mark.n]);
    ctx.fillStyle = ctx.strokeStyle = color(TONES[kind]);
    const many = own.reduce((sum, mark) => sum + mark.n, 0) > SIGNS_AT_MOST && own.length > FEW;
    if (many) drawBars(ctx, places, bottom, ratio);
    else for (const [x, n] of places) drawSign(ctx, kind, x, bottom - 4.5 * ratio, (n > 1 ? 4.4 : 3.6) * ratio);
    if (kind === "checkpoint" && own.length <= LINES_AT_MOST) drawLines(ctx, places, bottom, u.bbox, ratio);
  });
  ctx.restore();
}

function drawBars(ctx, places, bottom, ratio) {
  const most = Math.max(...places.map(([, n]) => n));
  for (const [x, n] of places) {
    const height = Math.max(1, (n / most) * (LANE - 3)) * ratio;
    ctx.fillRect(x, bottom - height, 2 * ratio, height);
  }
}

function drawLines(ctx, places, top, box, ratio) {
  ctx.strokeStyle = color("ink-3");
  ctx.globalAlpha = 0.45;
  ctx.lineWidth = ratio;
  ctx.setLineDash([2 * ratio, 3 * ratio]);
  for (const [x] of places) line(ctx, x, top, x, box.top + box.height);
  ctx.setLineDash([]);
  ctx.globalAlpha = 1;
}

function drawSign(ctx, kind, x, y, size) {
  if (kind === "checkpoint") polygon(ctx, [x, y - size, x + size, y, x, y + size, x - size, y]);
  else if (kind === "joined") polygon(ctx, [x - size, y + size, x, y - size, x + size, y + size]);
  else if (kind === "left") polygon(ctx, [x - size, y - size, x, y + size, x + size, y - size]);
  else {
    ctx.lineWidth = size / 2.1;
    line(ctx, x - size, y - size, x + size, y + size);
    line(ctx, x - size, y + size, x + size, y - size);
  }
}

function polygon(ctx, points) {
  ctx.beginPath();
  ctx.moveTo(points[0], points[1]);
  for (let i = 2; i < points.length; i += 2) ctx.lineTo(points[i], points[i + 1]);
  ctx.closePath();
  ctx.fill();
}

function line(ctx, x1, y1, x2, y2) {
  ctx.beginPath();
  ctx.moveTo(x1, y1);
  ctx.lineTo(x2, y2);
  ctx.stroke();
}
