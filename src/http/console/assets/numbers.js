// The banner of numbers, the plot, and what is told of the whole installation.

import { byId, fill, h, name, say, table } from "./dom.js";
import { model } from "./model.js";
import { text } from "./strings.js";
import { shown, shownMinute } from "./time.js";

const tiles = new Map();

function tile(id, label, value) {
  let made = tiles.get(id);
  if (!made) {
    made = h("dd", { "data-number": id });
    byId("tiles").append(h("div", {}, h("dt", {}, label), made));
    tiles.set(id, made);
  }
  say(made, value);
}

const number = (value) => (value === undefined || value === null ? text.unknown : value.toLocaleString());

export function showNumbers() {
  const { stats, sessions, isWhole } = model;
  const known = (value) => (isWhole ? number(value) : text.atLeast(number(value)));
  const of = (field) => {
    if (!stats) return text.unknown;
    return stats.approximate?.[field] === undefined ? number(stats[field]) : text.about(number(stats[field]));
  };
  const users = () => new Set([...sessions.values()].map((session) => session.user)).size;
  tile("streams", text.streams, stats ? of("streams") : known(sessions.size));
  tile("users", text.users, stats ? of("users") : known(users()));
  tile("at-limit", text.usersAtLimit, of("users_at_limit"));
  const minute = stats?.last_minute ?? {};
  tile("starts", text.starts, number(minute.starts));
  tile("refusals", text.refused, number(minute.refusals));
  tile("displacements", text.displacements, number(minute.displacements));
  tile("releases", text.releases, number(minute.releases));
  say(byId("numbers-note"), stats ? note(stats) : text.noStats);
}

function note(stats) {
  const about = [(text.scope[stats.scope] ?? text.scope.instance)(stats.instances)];
  if (stats.complete === false) about.push(text.incomplete);
  const errors = Object.values(stats.approximate ?? {});
  if (errors.length > 0) about.push(text.approximate(text.percent(Math.max(...errors), false)));
  return about.join(" ");
}

const SVG = "http://www.w3.org/2000/svg";

function svg(name, attributes, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

let plotted;

export function showPlot() {
  const minutes = model.stats?.minutes;
  const now = minutes === undefined ? "" : JSON.stringify(minutes);
  if (now === plotted) return;
  plotted = now;
  const place = byId("plot");
  if (minutes === undefined) return fill(place, h("p", { className: "note" }, text.plotNone));
  const isOpen = place.querySelector("details")?.open ?? false;
  const highest = Math.max(1, ...minutes.map(({ starts, refusals }) => starts + refusals));
  const sum = (field) => minutes.reduce((sum, minute) => sum + minute[field], 0);
  // Refusals stand on starts: the bar is what was asked for in that minute.
  const bars = minutes.flatMap(({ starts, refusals }, at) => {
    const bar = (className, from, value) =>
      svg("rect", { class: className, x: at * 10 + 1, width: 8, y: 100 - (100 * (from + value)) / highest, height: (100 * value) / highest });
    return [bar("starts", 0, starts), bar("refusals", starts, refusals)];
  });
  const label = text.plotLabel(sum("starts"), sum("refusals"), highest);
  const frame = { viewBox: `0 0 ${10 * Math.max(1, minutes.length)} 100`, preserveAspectRatio: "none", role: "img", "aria-label": label };
  const key = (className, label) => h("span", {}, h("span", { className: `key ${className}` }), label);
  const rows = minutes.map(({ at, starts, refusals }) => [shownMinute(at), number(starts), number(refusals)]).reverse();
  fill(place,
    h("p", { className: "legend" }, key("starts", text.plotStarts), key("refusals", text.plotRefusals)),
    h("div", { className: "axis" }, h("span", {}, text.highest(number(highest)))),
    svg("svg", frame, ...bars),
    h("div", { className: "axis" }, h("span", {}, minutes.length ? shownMinute(minutes[0].at) : ""), h("span", {}, minutes.length ? shownMinute(minutes.at(-1).at) : "")),
    h("details", { open: isOpen }, h("summary", {}, text.plotTable),
      table(text.ratesTitle, [[text.minute], [text.plotStarts, "number"], [text.plotRefusals, "number"]], rows, true)));
}

export function showReasons() {
  const told = model.stats?.refusals_last_hour;
  const seen = {};
  for (const event of model.events) {
    if (event.type === "refused" || event.type === "displaced") {
      const reason = event.reason ?? event.type;
      seen[reason] = (seen[reason] ?? 0) + 1;
    }
  }
  const rows = Object.entries(told ?? seen).filter(([, times]) => times > 0).sort((one, other) => other[1] - one[1]);
  const links = rows.map(([reason, times]) => [h("a", { href: `v1/problems#${encodeURIComponent(reason)}` }, reason), number(times)]);
  const about = told ? null : h("p", { className: "note" }, text.refusalsSince(shown(model.opened)));
  const body = rows.length === 0
    ? h("p", {}, text.noRefusals)
    : table(text.refusalsTitle, [[text.reason], [text.number, "number"]], links, true);
  replace("reasons", JSON.stringify([told ?? null, rows]), () => [about, body]);
}

const last = new Map();

/** Replaces what an element holds only if what it shows has changed: the focus stays. */
function replace(id, state, make) {
  if (last.get(id) === state) return;
  last.set(id, state);
  fill(byId(id), make());
}

export function showShares() {
  const { stats } = model;
  byId("shares").hidden = !stats?.by_kind;
  byId("what-if").hidden = !stats?.would_refuse;
  const { by_kind, by_plan, top_content } = stats ?? {};
  replace("shares-body", JSON.stringify([by_kind, by_plan, top_content]), () => {
    const share = (title, rows) => h("div", {}, rows.length === 0 ? null
      : table(title, [[text.name], [text.streams, "number"]], rows.slice(0, 10).map(([what, streams]) => [what, number(streams)])));
    const sorted = (counts) => Object.entries(counts ?? {}).sort((one, other) => other[1] - one[1]);
    return [
      share(text.byKind, sorted(by_kind).map(([kind, streams]) => [text.kinds[kind] ?? kind, streams])),
      share(text.byPlan, sorted(by_plan).map(([plan, streams]) => [plan === "" ? text.noPlan : name(plan), streams])),
      share(text.byContent, (top_content ?? []).map(({ content, streams }) => [name(content), streams])),
    ];
  });
  replace("what-if-body", JSON.stringify(stats?.would_refuse ?? null), () =>
    Object.entries(text.period).filter(([period]) => stats?.would_refuse?.[period]?.length > 0).map(([period, title]) => {
      const rows = stats.would_refuse[period].map((row) => [number(row.limit),
        text.percent(row.starts_refused, row.lower_bound), text.percent(row.users_refused, row.lower_bound)]);
      return table(title, [[text.atLimit, "number"], [text.startsRefused, "number"], [text.usersRefused, "number"]], rows);
    }));
}
