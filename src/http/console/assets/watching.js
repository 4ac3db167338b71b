// Who is watching now, as cards or as a table.

import { align, byId, fill, h, name, say } from "./dom.js";
import { endOne } from "./ending.js";
import { key, model } from "./model.js";
import { text } from "./strings.js";
import { left, shown } from "./time.js";
import { openUser } from "./user.js";

const STEP = 100;

let view = matchMedia("(max-width: 56rem)").matches ? "cards" : "table";
let most = STEP;
let place;
const kept = new Map();
const pressed = new Map();

export function setUp() {
  for (const [id, label] of [["table", text.viewTable], ["cards", text.viewCards]]) {
    const button = h("button", { type: "button", "aria-pressed": String(view === id) }, label);
    button.addEventListener("click", () => choose(id));
    byId("views").append(button);
    pressed.set(id, button);
  }
  byId("views").setAttribute("aria-label", text.views);
  byId("filter").addEventListener("input", showWatching);
  byId("more").addEventListener("click", () => {
    most += STEP;
    showWatching();
  });
  choose(view);
}

function choose(chosen) {
  view = chosen;
  for (const [id, button] of pressed) button.setAttribute("aria-pressed", String(id === view));
  kept.clear();
  if (view === "cards") {
    place = h("ul", { className: "cards" });
    fill(byId("sessions"), place);
  } else {
    place = h("tbody");
    fill(byId("sessions"), frame(text.columns, ["user", "content", "device", "kind", "gateway", "since", "lease", "action"], place));
  }
  showWatching();
}

function frame(titles, columns, body) {
  const head = columns.map((column) => h("th", { scope: "col" }, titles[column]));
  return h("div", { className: "scroll", tabIndex: 0, role: "group", "aria-label": text.sessionsRegion },
    h("table", {}, h("thead", {}, h("tr", {}, head)), body));
}

export function showWatching() {
  if (!place) return;
  const wanted = byId("filter").value.trim().toLowerCase();
  const holds = (session) =>
    [session.user, session.content, session.device, session.session, session.gateway, session.kind]
      .some((fact) => fact?.toLowerCase().includes(wanted));
  const found = [...model.sessions.values()].filter((session) => wanted === "" || holds(session));
  found.sort((one, other) => (other.started_at ?? "").localeCompare(one.started_at ?? "") || key(one).localeCompare(key(other)));
  const rows = found.slice(0, most);
  align(place, kept, rows, key, view === "cards" ? card : row, update);
  byId("more").hidden = found.length <= most;
  byId("sessions").hidden = found.length === 0;
  const known = model.sessions.size;
  let note = text.shown(rows.length, known);
  if (known === 0) note = text.noSessions;
  else if (found.length === 0) note = text.noMatch;
  say(byId("watching-note"), model.isWhole ? note : `${note} ${text.partial(known)}`);
}

/** The parts of a session that both views show. */
export function parts(session) {
  const user = h("button", { type: "button", className: "name", title: text.openUser(session.user) }, name(session.user));
  user.addEventListener("click", () => openUser(session.user));
  const since = h("time", {});
  const meter = h("progress", { max: 1, "aria-label": text.columns.lease });
  const rest = h("span", { className: "ago" });
  const end = h("button", { type: "button", className: "danger", "aria-label": text.endOf(session.session, session.user) }, text.end);
  if (session.kind === "request") {
    end.disabled = true;
    end.title = text.notStoppable;
  } else {
    end.addEventListener("click", () => endOne(session));
  }
  const facts = { content: h("span"), device: h("span"), gateway: h("span") };
  return { user, since, meter, rest, end, ...facts, kind: text.kinds[session.kind] ?? session.kind ?? text.unknown };
}

function row(session) {
  const made = parts(session);
  const cells = [made.user, made.content, made.device, made.kind, made.gateway, made.since,
    [made.meter, " ", made.rest], made.end];
  return { ...made, element: h("tr", { "data-session": session.session }, cells.map((cell) => h("td", {}, cell))) };
}

function card(session) {
  const made = parts(session);
  const pair = (term, ...value) => [h("dt", {}, text.columns[term]), h("dd", {}, ...value)];
  const facts = h("dl", { className: "facts" },
    ...pair("content", made.content), ...pair("device", made.device), ...pair("kind", made.kind),
    ...pair("gateway", made.gateway), ...pair("since", made.since), ...pair("lease", made.meter, " ", made.rest));
  return { ...made, element: h("li", { "data-session": session.session }, h("h3", {}, made.user), facts, made.end) };
}

/** Brings the parts in line with what is known of the session now. */
export function update(made, session) {
  for (const fact of ["content", "device", "gateway"]) {
    const value = session[fact] ?? text.unknown;
    if (made[fact].textContent !== value) fill(made[fact], name(value));
  }
  if (session.started_at) {
    say(made.since, text.since(shown(session.started_at), text.span((-left(session.started_at)))));
    made.since.dateTime = session.started_at;
  }
  const hasLease = session.expires_at !== undefined;
  made.meter.hidden = !hasLease;
  if (!hasLease) return say(made.rest, text.leaseUnknown);
  const rest = left(session.expires_at);
  made.meter.value = Math.max(0, Math.min(1, (1000 * rest) / Math.max(session.longest ?? 0, 1000)));
  say(made.rest, rest <= 0 ? text.leaseOver : text.leaseLeft(text.span(rest)));
}
