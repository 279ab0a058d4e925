// The strip of figures: what a visitor wants to know first, each with its age.

import { $, h } from "./dom.js";
import { clock, compact, DASH, day, duration, fixed, integer, percent, rate } from "./format.js";
import { t } from "./i18n.js";
import { countStates, serverNow, store } from "./store.js";

export function showFigures() {
  const { run } = store;
  const now = serverNow();
  const age = duration(Math.max(0, now - run.generated_at));
  $("figures").replaceChildren(
    peersTile(age),
    stepTile(run, age),
    tile(t("samples_per_second"), rate(run.samples_per_second), samplesDetail(run), age),
    lossTile(run, age),
    checkpointTile(run, now),
    finishTile(run, now),
  );
}

function tile(title, value, detail, age, small = null, progress = null) {
  const bar = progress === null ? null : h("div", { class: "progress" }, h("i"));
  if (bar) bar.firstChild.style.width = `${Math.min(100, progress * 100)}%`;
  return h(
    "dl",
    { class: "tile" },
    // where it must break, then not between a number and its unit
    h("dt", {}, title, h("span", { class: "age" }, (age ?? "").replace(/^(\d+) /, "$1\u00a0"))),
    h("dd", {}, value, small ? h("small", {}, ` ${small}`) : null),
    h("p", {}, detail ?? ""),
    bar,
  );
}

function peersTile(age) {
  const counts = countStates();
  const alive = [...store.peers.values()].filter((peer) => peer.state !== "lost" && peer.state !== "leaving");
  const gpus = alive.reduce((sum, peer) => sum + (peer.device.startsWith("cuda") ? peer.ranks : 0), 0);
  const client = alive.filter((peer) => peer.client_mode).length;
  const parts = [
    t("peers_training", { n: counts.training + counts.averaging }),
    client ? t("peers_client", { n: client }) : "",
    gpus ? t("peers_gpus", { n: gpus }) : "",
  ];
  return tile(t("peers_now"), integer(alive.length), parts.filter(Boolean).join(", "), age);
}

function stepTile(run, age) {
  const of = run.target_steps ? t("of", { n: integer(run.target_steps) }) : null;
  if (run.state === "finished") return tile(t("global_step"), integer(run.global_step), "", age, of);
  const share = run.target_batch_size ? run.samples_accumulated / run.target_batch_size : 0;
  const detail = t("batch_detail", { percent: percent(Math.min(1, share)) });
  return tile(t("global_step"), integer(run.global_step), detail, age, of, share);
}

function samplesDetail(run) {
  const total = t("samples_detail", { total: compact(run.samples_total) });
  return run.goodput === null ? total : `${total}, ${t("goodput", { percent: percent(run.goodput) })}`;
}

function lossTile(run, age) {
  const heldout = run.heldout_loss === null ? "" : t("heldout_detail", { loss: fixed(run.heldout_loss, 3) });
  return tile(t("loss"), fixed(run.train_loss, 3), heldout, run.train_loss === null ? "" : age);
}

function checkpointTile(run, now) {
  const last = run.checkpoints.at(-1);
  if (!last) return tile(t("last_checkpoint"), DASH, t("no_checkpoint"));
  const age = last.saved_at ? t("ago", { age: duration(now - last.saved_at, true) }) : "";
  return tile(t("last_checkpoint"), t("step_n", { n: integer(last.step) }), heldoutOf(last), age);
}

function heldoutOf(checkpoint) {
  return checkpoint.heldout_loss === null ? "" : t("heldout_detail", { loss: fixed(checkpoint.heldout_loss, 3) });
}

function finishTile(run, now) {
  if (run.state === "finished") return tile(t("time_to_finish"), t("finished"), "");
  if (!run.target_steps) return tile(t("time_to_finish"), DASH, t("no_end"));
  const left = (run.target_steps - run.global_step) * run.target_batch_size - run.samples_accumulated;
  if (!run.samples_per_second) return tile(t("time_to_finish"), DASH, "");
  const seconds = Math.max(0, left) / run.samples_per_second;
  const end = now + seconds;
  const when = seconds > 36 * 3600 ? day(end) : clock(end, false);
  return tile(t("time_to_finish"), duration(seconds), t("finish_at", { when }), "", null, run.global_step / run.target_steps);
}
