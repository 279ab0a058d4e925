// The live connection, and the banner that says when it, or the tracker behind it, has gone quiet.

import { $ } from "./dom.js";
import { t } from "./i18n.js";
import { duration } from "./format.js";
import { applyDelta, applySnapshot, serverNow, store } from "./store.js";

const STALE_AFTER = 5; // seconds; a tick comes every second

export function openStream() {
  let source = null;
  let lastAttempt = 0;
  const connect = () => {
    lastAttempt = Date.now();
    source?.close();
    source = new EventSource("/api/stream");
    source.addEventListener("snapshot", (event) => applySnapshot(JSON.parse(event.data)));
    source.addEventListener("delta", (event) => applyDelta(JSON.parse(event.data)));
  };
  connect();
  setInterval(() => {
    showAge();
    // Browsers give up on some failures, and a dead link may look open: begin anew.
    const silent = (Date.now() - Math.max(store.receivedAt, lastAttempt)) / 1000;
    if (silent > 15 || (source.readyState === EventSource.CLOSED && silent > 3)) connect();
  }, 1000);
}

function showAge() {
  const banner = $("stale");
  if (!store.run) return;
  const silent = (Date.now() - store.receivedAt) / 1000;
  const old = serverNow() - store.run.generated_at;
  banner.hidden = silent < STALE_AFTER && old < 2 * STALE_AFTER;
  document.body.classList.toggle("is-stale", !banner.hidden);
  if (silent >= STALE_AFTER) banner.textContent = t("stale_server", { age: duration(silent) });
  else if (!banner.hidden) banner.textContent = t("stale_tracker", { age: duration(old) });
}
