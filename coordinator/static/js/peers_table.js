// The table of peers: sorted by any column, filtered by any word, from the keyboard too. Of hundreds of peers only
// the rows down to where somebody has scrolled are in the page; below them lies as much empty space as the rest needs.

import { $, h, stateChip } from "./dom.js";
import { compact, DASH, duration, fixed, integer, percent, rate } from "./format.js";
import { t } from "./i18n.js";
import { serverNow, store } from "./store.js";

const STATE_ORDER = ["stalled", "lost", "leaving", "joining", "syncing", "averaging", "training"];

const COLUMNS = [
  { key: "name", value: (p) => p.name.toLowerCase(), cell: nameCell },
  { key: "state", value: (p) => STATE_ORDER.indexOf(p.state), cell: stateCell },
  { key: "hardware", value: (p) => hardware(p), cell: hardwareCell },
  { key: "version", value: (p) => p.version, cell: (p) => p.version || DASH },
  { key: "heard", number: true, value: (p) => -p.heard_at, cell: (p, now) => duration(Math.max(0, now - p.heard_at)) },
  { key: "speed", number: true, value: (p) => p.samples_per_second, cell: (p) => rate(p.samples_per_second) },
  { key: "samples", number: true, value: (p) => p.samples_contributed, cell: (p) => integer(p.samples_contributed) },
  { key: "share", number: true, value: (p) => p.samples_contributed, cell: (p) => percent(share(p)) },
  { key: "step", number: true, value: (p) => p.global_step, cell: (p) => integer(p.global_step) },
  { key: "loss", number: true, value: (p) => p.loss ?? Infinity, cell: (p) => fixed(p.loss, 3) },
  { key: "error", value: (p) => p.error ?? "", cell: (p) => p.error ?? "" },
];

const FIRST_ROWS = 40;
const MORE_ROWS = 60;

const rows = new Map(); // by peer id: the row and what it shows
const order = { key: "samples", descending: true };
let needle = "";
let reach = FIRST_ROWS; // how many rows are in the page

export function startTable() {
  const scroller = $("peers").parentElement;
  scroller.addEventListener("scroll", () => {
    const rest = $("peers").querySelector("tr.rest");
    if (!rest || scroller.scrollTop + 2 * scroller.clientHeight < rest.offsetTop) return;
    const seen = Math.ceil((scroller.scrollTop + scroller.clientHeight) / rowHeight());
    reach = Math.max(reach, seen) + MORE_ROWS;
    showTable();
  });
  $("filter").addEventListener("input", (event) => {
    needle = event.target.value.trim().toLowerCase();
    showTable();
  });
}

export function showTable() {
  $("filter").placeholder = t("filter");
  $("filter").setAttribute("aria-label", t("filter"));
  const all = [...store.peers.values()];
  const shown = all.filter(matches).sort(compare);
  $("table-note").textContent = t("table_note", { shown: integer(shown.length), all: integer(all.length) });
  const table = $("peers");
  if (table.dataset.language !== document.documentElement.lang || !table.tHead) drawHead(table);
  table.tBodies[0] ?? table.append(h("tbody"));
  const now = serverNow();
  const near = shown.slice(0, reach);
  const wanted = near.map((peer) => row(peer, now));
  if (!wanted.length) wanted.push(emptyRow(t(all.length ? "no_match" : store.run.state === "finished" ? "nobody_left" : "no_peers")));
  arrange(table.tBodies[0], wanted);
  if (shown.length > near.length) table.tBodies[0].append(restRow(shown.length - near.length));
  const kept = new Set(near.map((peer) => peer.peer_id));
  for (const id of rows.keys()) if (!kept.has(id)) rows.delete(id);
}

function rowHeight() {
  return $("peers").tBodies[0].rows[0].offsetHeight || 32;
}

function restRow(count) {
  const cell = h("td", { colSpan: COLUMNS.length });
  cell.style.height = `${count * rowHeight()}px`;
  return h("tr", { class: "rest" }, cell);
}

function emptyRow(text) {
  return h("tr", {}, h("td", { class: "note", colSpan: COLUMNS.length }, text));
}

// Rows that are where they belong are left alone: selection, hover and scrolling survive the tick.
function arrange(body, wanted) {
  wanted.forEach((element, i) => {
    if (body.children[i] !== element) body.insertBefore(element, body.children[i] ?? null);
  });
  while (body.children.length > wanted.length) body.lastChild.remove();
}

function drawHead(table) {
  table.dataset.language = document.documentElement.lang;
  table.tHead?.remove();
  const cells = COLUMNS.map((column) => {
    const button = h("button", { type: "button", on: { click: () => sortBy(column) } }, t(`col_${column.key}`));
    return h("th", { class: column.number ? "number" : "", "data-key": column.key, scope: "col" }, button);
  });
  table.prepend(h("thead", {}, h("tr", {}, cells)));
  markOrder(table);
}

function markOrder(table) {
  for (const cell of table.tHead.rows[0].cells) {
    if (cell.dataset.key === order.key) cell.setAttribute("aria-sort", order.descending ? "descending" : "ascending");
    else cell.removeAttribute("aria-sort");
  }
}

function sortBy(column) {
  order.descending = order.key === column.key ? !order.descending : Boolean(column.number);
  order.key = column.key;
  markOrder($("peers"));
  showTable();
}

function compare(a, b) {
  const { value } = COLUMNS.find((column) => column.key === order.key);
  const [x, y] = [value(a), value(b)];
  const sign = x < y ? -1 : x > y ? 1 : a.name.localeCompare(b.name);
  return order.descending && x !== y ? -sign : sign;
}

function matches(peer) {
  if (!needle) return true;
  const text = [peer.name, peer.peer_id, peer.device, peer.hardware, peer.version, peer.state, t(peer.state), peer.error ?? ""];
  return needle.split(/\s+/).every((word) => text.join(" ").toLowerCase().includes(word));
}

function row(peer, now) {
  let known = rows.get(peer.peer_id);
  if (!known) {
    known = { element: h("tr", {}, COLUMNS.map((column) => h("td", { class: classOf(column) }))), shown: [] };
    rows.set(peer.peer_id, known);
  }
  COLUMNS.forEach((column, i) => {
    const content = column.cell(peer, now);
    const text = typeof content === "string" ? content : content.dataset.text;
    if (known.shown[i] === text) return;
    known.shown[i] = text;
    known.element.cells[i].replaceChildren(content);
  });
  known.element.classList.toggle("away", peer.state === "lost" || peer.state === "leaving");
  return known.element;
}

function classOf(column) {
  return column.number ? "number" : column.key === "error" ? "error" : "";
}

function nameCell(peer) {
  const tag = peer.client_mode ? h("span", { class: "tag" }, t("client_mode")) : null;
  const id = h("span", { class: "id", title: peer.peer_id }, `…${peer.peer_id.slice(-6)}`);
  return h("span", { "data-text": `${peer.name} ${peer.client_mode && t("client_mode")}` }, peer.name, id, tag ?? "");
}

function stateCell(peer) {
  const chip = stateChip(peer.state, t(peer.state));
  chip.dataset.text = t(peer.state);
  return chip;
}

// Part of the run's samples; not in the stream, for it changes for everybody whenever anybody adds some.
function share(peer) {
  const all = store.run.samples_total;
  return all ? Math.min(1, peer.samples_contributed / all) : null;
}

/** The sum of its devices, and each of them where the pointer rests: a mean hides the one that idles. */
function hardwareCell(peer) {
  const text = hardware(peer);
  const each = (peer.devices ?? []).map((device, i) => `${i + 1}: ${busy([device]).join(" · ")}`).join("\n");
  return h("span", { "data-text": `${text} ${each}`, title: each }, text);
}

function hardware(peer) {
  const device = peer.hardware || peer.device || DASH;
  return [peer.ranks > 1 ? `${peer.ranks} × ${device}` : device, ...busy(peer.devices ?? [])].join(" · ");
}

/** Mean utilisation and memory, total power and the highest temperature of a peer's accelerators. */
function busy(devices) {
  if (!devices.length) return [];
  const mean = (key) => devices.reduce((sum, d) => sum + d[key], 0) / devices.length;
  const known = (key) => devices.map((d) => d[key]).filter((value) => value != null);
  const watts = known("power").reduce((sum, value) => sum + value, 0);
  const hottest = Math.max(...known("temperature"));
  return [
    percent(mean("utilization")),
    `RAM ${percent(mean("memory"))}`,
    ...(watts ? [`${Math.round(watts)} W`] : []),
    ...(Number.isFinite(hottest) ? [`${Math.round(hottest)} °C`] : []),
  ];
}
