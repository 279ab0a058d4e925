// The page's language: chosen by ?lang=, then by the last choice made here, then by the browser.

import { en } from "./words_en.js";
import { ru } from "./words_ru.js";

const words = { en, ru };
const LANGUAGES = Object.keys(words);
let language = pick();

function pick() {
  const asked = new URLSearchParams(location.search).get("lang");
  const candidates = [asked, localStorage.getItem("artel-language"), ...navigator.languages.map((l) => l.slice(0, 2))];
  return candidates.find((candidate) => LANGUAGES.includes(candidate)) ?? "en";
}

export function locale() {
  return language === "ru" ? "ru-RU" : "en-GB";
}

export function numberLocale() {
  return language === "ru" ? "ru-RU" : "en-US"; // British compact notation writes 86m for millions
}

export function currentLanguage() {
  return language;
}

export function setLanguage(next) {
  language = next;
  localStorage.setItem("artel-language", next);
}

// `{name}` in the text is replaced; `{n|one|few|many}` picks the plural form of n.
export function t(key, values = {}) {
  const text = words[language][key] ?? words.en[key];
  if (text === undefined) return key;
  return text.replace(/\{(\w+)((?:\|[^|}]*)*)\}/g, (_, name, forms) => {
    if (!forms) return values[name] ?? "";
    return plural(values[name], forms.slice(1).split("|"));
  });
}

export function has(key) {
  return words[language][key] !== undefined;
}

// Reasons are recorded in English; the tracker's are known here, a number in them stands for {n}.
export function reasonInWords(reason) {
  const n = reason.match(/\d+/)?.[0];
  const key = `reason_${reason.replace(/\d+/, "#")}`;
  return has(key) ? t(key, { n }) : reason;
}

function plural(n, forms) {
  const rule = new Intl.PluralRules(locale()).select(n);
  const order = language === "ru" ? ["one", "few", "many"] : ["one", "other"];
  const place = order.indexOf(rule);
  return forms[place < 0 ? forms.length - 1 : Math.min(place, forms.length - 1)];
}

export function translatePage() {
  document.documentElement.lang = language;
  for (const element of document.querySelectorAll("[data-i18n]")) element.textContent = t(element.dataset.i18n);
}
