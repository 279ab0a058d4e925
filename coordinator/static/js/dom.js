// Small helpers to build elements. Text from peers goes through text nodes only, never through HTML.

export const $ = (id) => document.getElementById(id);

export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (key === "class") element.className = value;
    else if (key === "on") for (const [name, f] of Object.entries(value)) element.addEventListener(name, f);
    else if (key.startsWith("aria-") || key === "role" || key.startsWith("data-")) element.setAttribute(key, value);
    else element[key] = value;
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

export function swatch(color) {
  const element = h("i", { class: "swatch" });
  element.style.background = color;
  return element;
}

export function stateChip(state, word) {
  const element = h("span", { class: "state" }, word);
  element.style.setProperty("--state", `var(--${state})`);
  return element;
}

export function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

// A row of buttons of which one is pressed.
export function segmented(element, choices, chosen, label, choose) {
  element.setAttribute("aria-label", label);
  element.setAttribute("role", "group");
  element.choose = choose;
  const keys = [...element.children].map((button) => button.dataset.key);
  if (keys.length === choices.length && choices.every(([key], i) => key === keys[i])) {
    // The same buttons stay, and with them the keyboard's focus.
    choices.forEach(([key, word], i) => {
      element.children[i].textContent = word;
      element.children[i].setAttribute("aria-pressed", String(key === chosen));
    });
    return;
  }
  element.replaceChildren(
    ...choices.map(([key, word]) =>
      h("button", { type: "button", "aria-pressed": String(key === chosen), "data-key": key, on: { click: () => element.choose(key) } }, word),
    ),
  );
}
