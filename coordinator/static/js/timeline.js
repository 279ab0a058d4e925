// A row per peer, coloured by state: who was there when. Rows come in pages as they scroll into view, and only
// what is visible is drawn, so a run of thousands of peers scrolls like one of ten.

import { AXIS_WIDTH, RIGHT_PAD } from "./chart_base.js";
import { ask } from "./api.js";
import { $, color, h, segmented, swatch } from "./dom.js";
import { duration, integer, moment } from "./format.js";
import { t } from "./i18n.js";
import { serverNow, store } from "./store.js";

const PAGE = 100;
const FIRST = 600; // rows asked for before anybody knows how many there are
const NAMED_ROW = 17;
const HEIGHT = 340;
const DENSE_HEIGHT = 520; // a pixel for each of 500 peers
const GOES_ON = 30; // seconds since the last stay ended
const MANY = 40; // beyond, all rows at once say more than names

export class Timeline {
  constructor(element, { onCursor }) {
    this.element = element;
    this.onCursor = onCursor;
    this.canvas = h("canvas", {});
    this.spacer = h("div", { class: "timeline-rows" });
    this.hair = h("div", { class: "hair", hidden: true });
    this.tip = h("div", { class: "tip", hidden: true });
    this.scroller = h("div", { class: "timeline-scroll", tabIndex: 0 }, this.canvas, this.spacer);
    element.append(this.scroller, this.hair, this.tip);
    this.scroller.addEventListener("scroll", () => this.draw());
    this.scroller.addEventListener("mousemove", (event) => this.point(event));
    this.scroller.addEventListener("mouseleave", () => this.point(null));
    new ResizeObserver(() => this.draw()).observe(element);
    this.mode = null; // until somebody chooses
    this.reset();
  }

  reset() {
    this.rows = [];
    this.total = 0;
    this.loading = new Set();
  }

  // `edges` is asked for when the answer is there: the page's window has moved on by then.
  async load(span, edges) {
    this.span = span;
    const turn = (this.turn = (this.turn ?? 0) + 1);
    const first = await this.ask(0, this.rowsWanted());
    if (turn !== this.turn) return;
    this.reset();
    this.edges = edges();
    this.take(first);
    this.draw();
  }

  rowsWanted() {
    return this.rows.length ? Math.max(PAGE, Math.min(1000, this.rows.length)) : FIRST;
  }

  ask(offset, limit) {
    const points = Math.max(200, Math.round(this.element.clientWidth - AXIS_WIDTH));
    return ask("timeline", { ...this.span, offset, limit, points });
  }

  take(answer) {
    this.states = answer.states;
    this.total = answer.total;
    this.until = answer.end;
    answer.peers.forEach((peer, i) => {
      const stays = [];
      for (let k = 0; k < peer.stays.length; k += 3) {
        const [from, length, state] = peer.stays.slice(k, k + 3);
        stays.push([answer.start + from, answer.start + from + length, state]);
      }
      this.rows[answer.offset + i] = { ...peer, stays };
    });
    this.showWords();
  }

  showWords() {
    $("timeline-note").textContent = t("timeline_note", { n: integer(this.total), count: this.total });
    this.showModes();
  }

  // Where the veil over what is later than `time` begins.
  edgeAt(time) {
    return [this.element, this.edges ? Math.max(AXIS_WIDTH, this.toX(time, this.element.clientWidth)) : Infinity];
  }

  get dense() {
    return (this.mode ?? (this.total > MANY ? "dense" : "named")) === "dense";
  }

  get rowHeight() {
    if (!this.dense) return NAMED_ROW;
    const total = Math.max(1, this.total);
    return Math.min(9, Math.max(HEIGHT / total, Math.min(1, DENSE_HEIGHT / total)));
  }

  showModes() {
    $("timeline-modes").hidden = this.total <= 20;
    const choices = [["named", t("with_names")], ["dense", t("all_at_once")]];
    segmented($("timeline-modes"), choices, this.dense ? "dense" : "named", t("timeline"), (mode) => {
      this.mode = mode;
      this.showModes();
      this.scroller.scrollTop = 0;
      this.draw();
    });
  }

  // Live: whoever is here now goes on until now.
  follow(edges) {
    this.edges = edges;
    if (!this.states) return;
    const now = Math.min(edges[1], serverNow());
    for (const row of this.rows) {
      const peer = row && store.peers.get(row.peer_id);
      if (!peer) continue;
      const state = this.states.indexOf(peer.state);
      const last = row.stays.at(-1);
      const goesOn = last && now - last[1] < GOES_ON;
      if (goesOn && last[2] === state) last[1] = now;
      else row.stays.push([goesOn ? last[1] : now - 1, now, state]);
    }
    // On a chart of weeks a second is far less than a pixel, and hundreds of rows are not drawn for it.
    const pixel = (edges[1] - edges[0]) / this.element.clientWidth;
    if (now - this.drawnAt >= pixel / 2 || now < this.drawnAt) this.draw();
  }

  visible() {
    const height = this.rowHeight;
    const top = this.scroller.scrollTop;
    const first = Math.max(0, Math.floor(top / height));
    const last = Math.min(this.total, Math.ceil((top + this.scroller.clientHeight) / height));
    return [first, last];
  }

  draw() {
    const width = this.element.clientWidth;
    if (!this.edges || !width) return;
    this.drawnAt = serverNow();
    const full = Math.max(NAMED_ROW, this.total * this.rowHeight);
    const height = Math.min(full, this.dense ? DENSE_HEIGHT : HEIGHT);
    this.scroller.style.height = `${height}px`;
    this.spacer.style.height = `${full - height}px`;
    const ratio = devicePixelRatio;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    this.canvas.style.width = `${width}px`;
    this.canvas.style.height = `${height}px`;
    const ctx = this.canvas.getContext("2d");
    ctx.scale(ratio, ratio);
    const colors = this.states.map((state) => color(state));
    const [first, last] = this.visible();
    for (let i = first; i < last; i += 1) this.drawRow(ctx, i, width, colors);
    this.loadMissing(first, last);
  }

  drawRow(ctx, i, width, colors) {
    const row = this.rows[i];
    const height = this.rowHeight;
    const top = i * height - this.scroller.scrollTop;
    if (!row) return;
    const inset = height > 6 ? 1.5 : height > 3 ? 0.5 : 0;
    for (const [from, to, state] of row.stays) {
      const x = this.toX(Math.max(from, this.edges[0]), width);
      const end = this.toX(Math.min(to, this.edges[1]), width);
      if (end < AXIS_WIDTH) continue;
      ctx.fillStyle = colors[state];
      ctx.fillRect(x, top + inset, Math.max(0.8, end - x), Math.max(0.5, height - 2 * inset));
    }
    if (this.dense) return;
    ctx.fillStyle = color("ink-2");
    ctx.font = `11px ${color("font")}`;
    ctx.textBaseline = "middle";
    ctx.fillText(fitted(ctx, row.name, AXIS_WIDTH - 8), 0, top + height / 2 + 0.5);
  }

  toX(time, width) {
    const [start, end] = this.edges;
    return AXIS_WIDTH + ((time - start) / (end - start)) * (width - AXIS_WIDTH - RIGHT_PAD);
  }

  toTime(x) {
    const width = this.element.clientWidth - AXIS_WIDTH - RIGHT_PAD;
    return this.edges[0] + ((x - AXIS_WIDTH) / width) * (this.edges[1] - this.edges[0]);
  }

  async loadMissing(first, last) {
    const size = this.dense ? 1000 : PAGE;
    for (let offset = Math.floor(first / size) * size; offset < last; offset += size) {
      const upTo = Math.min(offset + size, this.total);
      let missing = offset;
      while (missing < upTo && this.rows[missing]) missing += 1;
      if (missing >= upTo || this.loading.has(missing)) continue;
      this.loading.add(missing);
      const turn = this.turn;
      const answer = await this.ask(missing, upTo - missing).catch(() => null); // asked again at the next draw
      this.loading.delete(missing);
      if (!answer || turn !== this.turn) return;
      this.take(answer);
      this.draw();
    }
  }

  // A vertical line at `time`, from this chart's or another's cursor.
  showCursor(time) {
    const outside = time === null || !this.edges || time < this.edges[0] || time > this.edges[1];
    this.hair.hidden = outside;
    if (!outside) this.hair.style.left = `${this.toX(time, this.element.clientWidth)}px`;
  }

  point(event) {
    const box = this.scroller.getBoundingClientRect();
    const x = event ? event.clientX - box.left : -1;
    const inside = event && x >= AXIS_WIDTH && x <= box.width - RIGHT_PAD;
    const time = inside ? this.toTime(x) : null;
    this.onCursor(time);
    const row = event && this.rows[Math.floor((event.clientY - box.top + this.scroller.scrollTop) / this.rowHeight)];
    this.tip.hidden = !row;
    if (!row) return;
    const stay = time === null ? null : row.stays.find(([from, to]) => from <= time && time < to);
    this.tip.replaceChildren(...tipRows(row, stay && [...stay.slice(0, 2), this.states[stay[2]]], this.until));
    placeTip(this.tip, x, event.clientY - box.top, box);
  }
}

function tipRows(row, stay, now) {
  const device = row.hardware || row.device;
  const rows = [h("div", { class: "row" }, h("strong", {}, row.name)), h("div", { class: "when" }, device)];
  if (!stay) return rows;
  const [from, to, state] = stay;
  rows.push(h("div", { class: "row" }, swatch(color(state)), t(state), h("b", {}, duration(to - from))));
  rows.push(h("div", { class: "when" }, `${moment(from, now)} – ${moment(to, now)}`));
  return rows;
}

function placeTip(tip, x, y, box) {
  const right = x > box.width / 2;
  tip.style.left = right ? "" : `${x + 14}px`;
  tip.style.right = right ? `${box.width - x + 14}px` : "";
  tip.style.top = `${Math.min(y + 8, box.height + 20)}px`;
}

function fitted(ctx, text, width) {
  if (ctx.measureText(text).width <= width) return text;
  let length = text.length;
  while (length > 1 && ctx.measureText(`${text.slice(0, length)}…`).width > width) length -= 1;
  return `${text.slice(0, length)}…`;
}
