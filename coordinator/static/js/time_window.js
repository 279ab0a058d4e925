// The stretch of time that all charts show, and its data: loaded once, carried on by live statuses, and
// loaded again from time to time so that averages and marks are those of the history.

import { ask } from "./api.js";
import { STACK } from "./peers_chart.js";
import { countOnline, countStates, serverNow, store } from "./store.js";

const SPANS = { "5m": 300, "1h": 3600, "24h": 86400 };
const RELOAD = [20, 300]; // seconds, at least and at most; coarse charts change slowly
const AFTER_NEWS = [3, 60]; // the same when something has happened

const EMPTY_COUNTS = { bucket: 1, t: [], samples_per_second: [], online_min: [], online_max: [], ...Object.fromEntries(STACK.map((s) => [s, []])) };

export class TimeWindow {
  constructor(facts, { asking, changed, failed }) {
    this.drawn = -Infinity; // where the right edge was when the charts were drawn
    this.facts = facts;
    this.changed = (span) => {
      this.drawn = this.edges[1];
      changed(span);
    };
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
    this.inFlight = 0;
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
    this.newsLoaded = store.news;
    const span = this.question();
    const rows = this.asking(span);
    this.inFlight += 1;
    try {
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
    } finally {
      await rows;
      this.inFlight -= 1;
    }
  }

  tick() {
    if (!this.loadedAt) return;
    this.facts.first ??= store.run.generated_at;
    this.newsLoaded ||= store.news;
    const before = this.edges;
    let fresh = false;
    if (this.live) {
      fresh = this.append();
      this.edges = this.wanted();
      // A slow coordinator is not asked again before it has answered.
      if (!this.inFlight && Date.now() - this.loadedAt > this.reloadEvery() * 1000) {
        this.loadedAt = Date.now();
        this.load().catch(this.failed);
      }
    }
    const pixel = (this.edges[1] - this.edges[0]) / innerWidth;
    if (fresh || this.edges[1] - this.drawn >= pixel / 2 || this.edges[1] < this.drawn) this.changed();
    else this.edges = before;
  }

  reloadEvery() {
    const news = store.news !== this.newsLoaded;
    const [least, most] = news ? AFTER_NEWS : RELOAD;
    return Math.min(most, Math.max(least, this.counts.bucket / (news ? 4 : 1)));
  }

  // The status now as the newest point; true if the charts look different for it.
  append() {
    const { counts } = this;
    const { bucket } = counts;
    const time = Math.floor(store.run.generated_at / bucket) * bucket;
    const last = counts.t.length - 1;
    if (last >= 0 && counts.t[last] > time) return false;
    const place = last >= 0 && counts.t[last] === time ? last : last + 1;
    const now = countStates();
    const online = countOnline(now);
    const fresh = place > last || STACK.some((state) => counts[state][place] !== now[state]);
    counts.t[place] = time;
    for (const state of STACK) counts[state][place] = now[state];
    counts.samples_per_second[place] = store.run.samples_per_second;
    counts.online_min[place] = Math.min(online, place === last ? counts.online_min[place] ?? online : online);
    counts.online_max[place] = Math.max(online, place === last ? counts.online_max[place] ?? online : online);
    return fresh;
  }
}

function initialRange() {
  const asked = new URLSearchParams(location.search).get("range");
  if (asked && (asked in SPANS || asked === "all")) return asked;
  return "all";
}
