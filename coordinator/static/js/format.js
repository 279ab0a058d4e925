// Numbers, durations and moments as people of the page's language write them.

import { locale, numberLocale, t } from "./i18n.js";

const cache = new Map();

function numberFormat(options) {
  const key = `n${numberLocale()}${JSON.stringify(options)}`;
  if (!cache.has(key)) cache.set(key, new Intl.NumberFormat(numberLocale(), options));
  return cache.get(key);
}

function dateFormat(options) {
  const key = `d${locale()}${JSON.stringify(options)}`;
  if (!cache.has(key)) cache.set(key, new Intl.DateTimeFormat(locale(), options));
  return cache.get(key);
}

export const DASH = "–";

export function integer(value) {
  return value === null || value === undefined ? DASH : numberFormat({ maximumFractionDigits: 0 }).format(value);
}

// Three significant digits below a hundred, whole numbers above.
export function rate(value) {
  if (value === null || value === undefined) return DASH;
  return numberFormat({ maximumFractionDigits: value < 10 ? 2 : value < 100 ? 1 : 0 }).format(value);
}

export function fixed(value, digits) {
  if (value === null || value === undefined) return DASH;
  return numberFormat({ minimumFractionDigits: digits, maximumFractionDigits: digits }).format(value);
}

export function compact(value) {
  if (value === null || value === undefined) return DASH;
  return value < 100000 ? integer(value) : numberFormat({ notation: "compact", maximumSignificantDigits: 3 }).format(value);
}

export function percent(value) {
  if (value === null || value === undefined) return DASH;
  return numberFormat({ style: "percent", maximumFractionDigits: value < 0.1 ? 1 : 0 }).format(value);
}

export function bytes(value) {
  if (value === null || value === undefined) return DASH;
  let step = 0;
  while (value >= 1000 && step < 5) {
    value /= 1000;
    step += 1;
  }
  return `${rate(value)} ${t("bytes").split(" ")[step]}`;
}

// In two units below ten of the larger one; with `roughly` in one.
export function duration(seconds, roughly = false) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return DASH;
  const [s, min, hour, day] = t("units").split(" ");
  if (seconds < 10) return `${fixed(Math.max(0, seconds), 0)} ${s}`;
  if (seconds < 60) return `${Math.floor(seconds)} ${s}`;
  if (seconds < 3600) return two(seconds, 60, min, 1, s, roughly);
  if (seconds < 86400) return two(seconds, 3600, hour, 60, min, roughly);
  return two(seconds, 86400, day, 3600, hour, roughly);
}

function two(seconds, size, name, part, small, roughly) {
  const rest = Math.floor((seconds % size) / part);
  const whole = Math.floor(seconds / size);
  return rest && whole < 10 && !roughly ? `${whole} ${name} ${rest} ${small}` : `${integer(whole)} ${name}`;
}

export function clock(time, withSeconds = true) {
  return dateFormat({ hour: "2-digit", minute: "2-digit", ...(withSeconds && { second: "2-digit" }), hourCycle: "h23" }).format(time * 1000);
}

export function day(time) {
  return dateFormat({ day: "numeric", month: "short" }).format(time * 1000);
}

// Short on the day itself, with the date before.
export function moment(time, now) {
  const sameDay = new Date(time * 1000).toDateString() === new Date(now * 1000).toDateString();
  return sameDay ? clock(time) : `${day(time)}, ${clock(time, false)}`;
}
