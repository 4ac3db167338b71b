// What happened lately, as events tell it.

import { byId, fill, h, name, say } from "./dom.js";
import { model } from "./model.js";
import { text } from "./strings.js";
import { shown } from "./time.js";
import { openUser } from "./user.js";

const SHOWN = 100;

let newest;

export function showLately() {
  const { events, connection } = model;
  const hasNone = connection === "polling" && events.length === 0;
  say(byId("lately-note"), hasNone ? text.noEvents : events.length === 0 ? text.feedEmpty : "");
  const feed = byId("feed");
  if (events[0] === newest && feed.childElementCount > 0) return;
  newest = events[0];
  // A reader who has scrolled or is on a button keeps the place: only the new ones are added.
  const first = feed.firstElementChild?.event;
  const known = events.indexOf(first);
  const added = (known < 0 ? events : events.slice(0, known)).slice(0, SHOWN);
  if (known < 0) fill(feed);
  feed.prepend(...added.map((event) => Object.assign(h("li", {}, describe(event, true)), { event })));
  while (feed.childElementCount > SHOWN) feed.lastElementChild.remove();
  feed.hidden = feed.childElementCount === 0;
}

/** An event in words. */
export function describe(event, withUser) {
  const what = text.events[event.type] ?? event.type;
  const about = text.eventUser(event.content, event.device);
  const why = event.cause ?? event.reason;
  const said = [
    `${what}`,
    event.user && about !== "" ? name(about) : null,
    why ? name(text.eventWhy(why)) : null,
    event.by ? name(text.eventBy(event.by)) : null,
    event.detail ? name(text.eventDetail(event.detail)) : null,
  ];
  const time = h("time", { dateTime: event.at }, shown(event.at));
  if (!event.user || !withUser) return [time, ...said];
  const user = h("button", { type: "button", className: "name", title: text.openUser(event.user) }, name(event.user));
  user.addEventListener("click", () => openUser(event.user));
  return [time, user, " ", ...said];
}
