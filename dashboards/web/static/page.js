// What the charts take from the viewer's browser: colours for dark or light, number formats. The options that the
// server sends call these (dashboards/web/charts.py); nothing here asks the network.
"use strict";

window.postel = (() => {
  const scheme = window.matchMedia("(prefers-color-scheme: dark)");
  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  // After Okabe and Ito: told apart by viewers with any colour vision, on light and on dark.
  const hues = ["hue-1", "hue-2", "hue-3", "hue-4", "hue-5", "hue-6", "hue-7", "hue-8"];
  const named = { first: "hue-1", second: "hue-2", good: "good", warn: "warn", bad: "bad", idle: "idle" };

  const number = new Intl.NumberFormat(undefined, { maximumFractionDigits: 2 });
  const short = new Intl.NumberFormat(undefined, { maximumSignificantDigits: 3 });
  const scaled = (value, units) => {
    let index = 0;
    while (Math.abs(value) >= 1000 && index < units.length - 1) {
      value /= 1000;
      index += 1;
    }
    return `${short.format(value)} ${units[index]}`;
  };
  const bytes = ["B", "kB", "MB", "GB", "TB", "PB"];
  const duration = (value) => {
    const [size, name] = [[86400, "d"], [3600, "h"], [60, "min"]].find(([size]) => value >= 2 * size) ?? [1, "s"];
    return `${short.format(value / size)} ${name}`;
  };
  const units = {
    "%": (value) => `${number.format(value)} %`,
    By: (value) => scaled(value, bytes),
    "By/s": (value) => `${scaled(value, bytes)}/s`,
    1: (value) => number.format(value),
    n: (value) => number.format(value),
    s: duration,
    "/s": (value) => `${number.format(value)}/s`,
    "/min": (value) => `${number.format(value)}/min`,
  };

  // The server sends the charts again; their colours are looked up anew then.
  scheme.addEventListener("change", () => emitEvent("postel-scheme"));

  return {
    format: (unit) => (value) => (value === null || value === undefined ? "no data" : units[unit](value)),
    hue: (name, index) => style(named[name] ?? hues[index % hues.length]),
    // A canvas takes no "inherit": it would fall back to its own 10 px.
    font: () => getComputedStyle(document.body).fontFamily,
    text: () => ({ color: style("muted"), fontSize: 11 }),
    // ECharts clips a legend to its height, and guesses a line's height from a character that this font may not have.
    legendText: () => ({ color: style("muted"), fontSize: 11, lineHeight: 14 }),
    // What tells names apart stands at their ends; the tooltip has the whole.
    brief: (name) => (name.length > 28 ? `${name.slice(0, 14)}…${name.slice(-13)}` : name),
    timeLabel: () => ({ color: style("muted"), fontSize: 11, hideOverlap: true, formatter: { day: "{d} {MMM}", hour: "{HH}:{mm}" } }),
    surface: () => style("card"),
    line: () => style("line"),
    faint: () => style("faint"),
    zone: () => Intl.DateTimeFormat().resolvedOptions().timeZone,
  };
})();

// <postel-time at="ISO 8601">: the moment in the viewer's zone; the day only where it is another than today's.
customElements.define(
  "postel-time",
  class extends HTMLElement {
    static observedAttributes = ["at"];

    attributeChangedCallback() {
      const at = new Date(this.getAttribute("at"));
      const today = at.toDateString() === new Date().toDateString();
      const exact = this.hasAttribute("exact");
      const parts = { hour: "2-digit", minute: "2-digit", second: "2-digit", ...(exact ? { fractionalSecondDigits: 3 } : {}) };
      const clock = at.toLocaleTimeString("en-GB", parts);
      const day = at.toLocaleDateString("en-GB", { day: "numeric", month: "short" });
      this.textContent = today ? clock : `${day} ${clock}`;
      this.title = at.toLocaleString(undefined, { dateStyle: "full", timeStyle: "long" });
    }
  },
);

document.addEventListener("DOMContentLoaded", () => {
  const place = () => {
    const label = document.querySelector(".zone-name");
    if (label) label.textContent = window.postel.zone();
    else setTimeout(place, 100);
  };
  place();
});
