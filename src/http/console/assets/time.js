// Times as the browser's zone shows them, by the server's clock.

import { text } from "./strings.js";

/** How far the server's clock is ahead of the browser's, in milliseconds. */
let ahead = 0;

/** Takes the time that an answer has. It has whole seconds, so smaller differences are none. */
export function heard(date) {
  const at = Date.parse(date);
  if (Number.isNaN(at)) return;
  const found = at + 500 - Date.now();
  ahead = Math.abs(found) < 1500 ? 0 : found;
}

/** The server's time. */
export const now = () => Date.now() + ahead;

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const minute = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const day = new Intl.DateTimeFormat(undefined, {
  year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit",
});

/** A time of today as a clock shows it, another with its day. */
export function shown(time) {
  const at = new Date(time);
  if (Number.isNaN(at.getTime())) return text.unknown;
  const isToday = new Date(now()).toDateString() === at.toDateString();
  return (isToday ? clock : day).format(at);
}

/** The minute of a time of the last hours. */
export const shownMinute = (time) => minute.format(new Date(time));

/** How long ago or ahead a time is. */
export const age = (time) => text.span((now() - Date.parse(time)) / 1000);
export const left = (time) => (Date.parse(time) - now()) / 1000;

/** The browser's zone, and how far it is from UTC now. */
export function zone() {
  const minutes = -new Date().getTimezoneOffset();
  const two = (number) => String(Math.floor(Math.abs(number))).padStart(2, "0");
  const offset = `${minutes < 0 ? "-" : "+"}${two(minutes / 60)}:${two(minutes % 60)}`;
  return text.zone(Intl.DateTimeFormat().resolvedOptions().timeZone, offset);
}
