// A finished run again: a slider over its time; the whole page shows the moment chosen.

import { ask } from "./api.js";
import { $, h } from "./dom.js";
import { clock, day } from "./format.js";
import { t } from "./i18n.js";
import { applySnapshot, store } from "./store.js";

const PLAY_SECONDS = 40; // the whole run in this time
const FRAME = 400; // ms

export class Replay {
  constructor(facts, shown) {
    this.first = facts.first ?? 0;
    this.last = facts.newest ?? 1;
    this.shown = shown;
    this.time = this.last;
    this.slider = h("input", { type: "range", min: 0, max: 1000, step: 1, value: 1000, on: { input: () => this.drag() } });
    this.button = h("button", { type: "button", class: "quiet", on: { click: () => this.toggle() } });
    this.when = h("output", {});
    $("replay").append(this.button, this.slider, this.when, h("span", { class: "note", "data-i18n": "replay_note" }));
    $("replay").hidden = false;
    store.frozen = true;
    this.translate();
  }

  translate() {
    this.button.textContent = t(this.playing ? "pause" : "play");
    this.slider.setAttribute("aria-label", t("replay"));
    $("replay").querySelector("[data-i18n]").textContent = t("replay_note");
    this.when.textContent = `${day(this.time)}, ${clock(this.time, this.last - this.first < 36 * 3600)}`;
  }

  drag() {
    this.stop();
    this.go(this.first + (this.slider.value / 1000) * (this.last - this.first));
  }

  toggle() {
    if (this.playing) return this.stop();
    if (this.time >= this.last) this.time = this.first;
    const step = (this.last - this.first) / ((PLAY_SECONDS * 1000) / FRAME);
    this.playing = setInterval(() => {
      const next = Math.min(this.last, this.time + step);
      this.slider.value = ((next - this.first) / (this.last - this.first)) * 1000;
      this.go(next);
      if (next >= this.last) this.stop();
    }, FRAME);
    this.translate();
  }

  stop() {
    clearInterval(this.playing);
    this.playing = null;
    this.translate();
  }

  async go(time) {
    this.time = time;
    this.translate();
    this.wanted = time;
    if (this.asking) return; // the newest wish is asked for when the answer is here
    this.asking = true;
    try {
      while (this.wanted !== null) {
        const asked = this.wanted;
        this.wanted = null;
        const status = await ask("at", { t: asked });
        applySnapshot({ now: asked, status });
        this.shown(asked);
      }
    } finally {
      this.asking = false;
    }
  }
}
