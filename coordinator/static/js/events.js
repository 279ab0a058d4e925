// What happened, in sentences, newest first. Known kinds are said in the page's language, others as recorded.

import { ask } from "./api.js";
import { $, h, segmented } from "./dom.js";
import { DASH, duration, fixed, moment } from "./format.js";
import { currentLanguage, has, reasonInWords, t } from "./i18n.js";
import { serverNow } from "./store.js";

const TONES = {
  joined: "training", synced: "syncing", stalled: "stalled", recovered: "training", left: "leaving", lost: "lost",
  returned: "syncing", checkpoint: "ink", restarted: "ink-3", split: "lost", reunited: "training",
  run_state: "averaging", refused: "lost", checkpoint_failed: "lost", state_not_judged: "lost", state_not_kept: "lost",
  settings: "averaging", paused: "joining", resumed: "training", finishing: "averaging", published: "ink",
  publish_failed: "lost", evicted: "lost", invited: "joining", admitted: "joining",
};
const PAGE = 40;

let choice = "all";
let rows = [];
let until = null; // in a replay: nothing later than this
let exhausted = false;

export async function loadEvents(end = null) {
  until = end;
  const newest = await ask("events", { limit: PAGE, about: about(), end: until });
  const known = new Set(newest.map((row) => row.id));
  const older = until === null && rows.length && newest.length ? rows.filter((row) => row.id < newest.at(-1).id && !known.has(row.id)) : [];
  if (!older.length) exhausted = newest.length < PAGE;
  rows = [...newest, ...older];
  showEvents();
}

export function showEvents() {
  const choices = [["all", t("events_all")], ["peers", t("events_peers")], ["run", t("events_run")]];
  segmented($("event-kinds"), choices, choice, t("events"), (key) => {
    choice = key;
    rows = [];
    loadEvents(until);
  });
  const version = `${currentLanguage()} ${rows.length} ${rows[0]?.id} ${exhausted}`;
  if (version === $("events").dataset.version) return;
  $("events").dataset.version = version;
  const items = rows.map(item);
  if (!items.length) items.push(h("li", { class: "note" }, t("no_events")));
  else if (!exhausted) items.push(h("li", {}, h("button", { type: "button", class: "quiet", on: { click: more } }, t("more"))));
  $("events").replaceChildren(...items);
}

function about() {
  return choice === "all" ? undefined : choice;
}

async function more() {
  const older = await ask("events", { limit: PAGE, about: about(), end: until, before_id: rows.at(-1).id });
  exhausted = older.length < PAGE;
  rows = [...rows, ...older];
  showEvents();
}

function item(row) {
  const dot = h("i", { class: "dot" });
  dot.style.background = `var(--${TONES[row.kind] ?? "ink-3"})`;
  const when = h("time", { dateTime: new Date(row.t * 1000).toISOString() }, moment(row.t, serverNow()));
  return h("li", {}, dot, h("span", {}, sentence(row)), when);
}

function sentence({ kind, sentence: recorded, data }) {
  if (currentLanguage() === "en") return recorded;
  const key = variant(kind, data);
  if (!has(key)) return recorded;
  const values = {
    ...data,
    age: duration(data.seconds),
    loss: fixed(data.heldout_loss ?? data.loss, 3),
    limit: fixed(data.limit, 3),
    donor: data.donor ? `${data.donor.slice(0, 4)}…${data.donor.slice(-6)}` : DASH,
    device: data.device || DASH,
    state: data.state ? t(`run_${data.state}`) : "",
  };
  const text = t(key, values);
  const tail = kind === "stalled" ? data.error : kind === "run_state" && data.reason ? reasonInWords(data.reason) : null;
  return tail ? `${text}: ${tail}` : text;
}

function variant(kind, data) {
  if (kind === "left" && data.samples) return "event_left_handed";
  if (kind === "lost" && data.unseen) return "event_lost_unseen";
  if (kind === "lost" && data.samples) return "event_lost_samples";
  if (kind === "checkpoint" && data.heldout_loss !== null && data.heldout_loss !== undefined) return "event_checkpoint_loss";
  if (kind === "refused") return `event_refused_${data.why}`;
  return `event_${kind}`;
}
