// The stretch of time that all charts show, and its data: loaded once, carried on by live statuses, and
// loaded again from time to time so that averages and marks are those of the history.

import { ask } from "./api.js";
import { STACK } from "./peers_chart.js";
import { countOnline, countStates, serverNow, store } from "./store.js";

const SPANS = { "5m": 300, "1h": 3600, "24h": 86400 };
const RELOAD = [20, 300]; // seconds, at least and at most; coarse charts change slowly

const EMPTY_COUNTS = { bucket: 1, t: [], samples_per_second: [], online_min: [], online_max: [], ...Object.fromEntries(STACK.map((s) => [s, []])) };

export class TimeWindow {
  constructor(facts, { asking, changed, failed }) {
    this.facts = facts;
    this.changed = changed;
    this.failed = failed;
    this.asking = asking;
    this.range = initialRange();
    this.counts = EMPTY_COUNTS;
    this.marks = [];
    this.steps = { t: [], loss: [], group_size: [], peers_alive: [] };
    this.checkpoints = [];
    this.problems = [];
    this.edges = this.wanted();
    this.loadedAt = 0;
    this.asked = 0;
  }

  get live() {
    return this.range !== "custom";
  }

  choose(range) {
    this.range = range;
    this.load().catch(this.failed);
  }

  zoom(start, end) {
    if (end - start < 5) return;
    this.range = "custom";
    this.custom = [start, end];
    this.load().catch(this.failed);
  }

  wanted() {
    if (this.range === "custom") return this.custom;
    const now = store.run ? serverNow() : (this.facts.newest ?? this.facts.now);
    if (this.range !== "all") return [now - SPANS[this.range], now];
    const first = this.facts.first ?? now;
    return [first, Math.max(now, first + 60)]; // a run that has just begun fills its first minute
  }

  // The same words from every viewer of a range, so that the coordinator answers once for all.
  question() {
    if (this.range === "all") return {};
    if (this.range === "custom") return { start: this.custom[0], end: this.custom[1] };
    return { last: SPANS[this.range] };
  }

  async load() {
    const turn = (this.asked += 1);
    const span = this.question();
    this.asking(span);
    const [counts, marks, steps, checkpoints, problems] = await Promise.all([
      ask("counts", span),
      ask("marks", { ...span, points: 240 }),
      ask("steps", span),
      ask("checkpoints"),
      ask("rounds", { ...span, limit: 20 }),
    ]);
    if (turn !== this.asked) return; // another range has been chosen meanwhile
    Object.assign(this, { counts, marks, steps, checkpoints, problems, edges: this.wanted(), loadedAt: Date.now() });
    this.changed(span);
  }

  tick() {
    if (!this.loadedAt) return;
    this.facts.first ??= store.run.generated_at;
    if (this.live) {
      this.append();
      this.edges = this.wanted();
      if (Date.now() - this.loadedAt > this.reloadEvery() * 1000) {
        this.loadedAt = Date.now();
        this.load().catch(this.failed);
      }
    }
    this.changed();
  }

  reloadEvery() {
    return Math.min(RELOAD[1], Math.max(RELOAD[0], this.counts.bucket));
  }

  append() {
    const { counts } = this;
    const { bucket } = counts;
    const time = Math.floor(store.run.generated_at / bucket) * bucket;
    const last = counts.t.length - 1;
    if (last >= 0 && counts.t[last] > time) return;
    const place = last >= 0 && counts.t[last] === time ? last : last + 1;
    const now = countStates();
    const online = countOnline(now);
    counts.t[place] = time;
    for (const state of STACK) counts[state][place] = now[state];
    counts.samples_per_second[place] = store.run.samples_per_second;
    counts.online_min[place] = Math.min(online, place === last ? counts.online_min[place] ?? online : online);
    counts.online_max[place] = Math.max(online, place === last ? counts.online_max[place] ?? online : online);
  }
}

function initialRange() {
  const asked = new URLSearchParams(location.search).get("range");
  if (asked && (asked in SPANS || asked === "all")) return asked;
  return "all";
}
