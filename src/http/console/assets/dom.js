// Makes elements. Texts from outside become text nodes, so nothing in them is ever markup.

export const byId = (id) => document.getElementById(id);

/** An element with properties, attributes ("aria-…", "data-…", "role" and the like) and children. */
export function h(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === undefined) continue;
    if (key in element && key !== "list") element[key] = value;
    else element.setAttribute(key, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** A name from outside: its direction can't reach the text around it. */
export const name = (text) => h("bdi", {}, text);

/** Replaces the children. */
export function fill(element, ...children) {
  element.replaceChildren(...children.flat().filter((child) => child !== null && child !== undefined));
}

/** Changes a text only if it differs, so that a reader's selection and a screen reader stay calm. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Brings a container's children in line with a list: elements are made, kept by key, moved and
 * dropped. `kept` is a Map that the caller keeps. */
export function align(container, kept, items, key, make, update) {
  const wanted = new Set(items.map(key));
  for (const [known, made] of kept) {
    if (!wanted.has(known)) {
      made.element.remove();
      kept.delete(known);
    }
  }
  let place = container.firstElementChild;
  for (const item of items) {
    let made = kept.get(key(item));
    if (!made) {
      made = make(item);
      kept.set(key(item), made);
    }
    update(made, item);
    if (made.element === place) place = place.nextElementSibling;
    else container.insertBefore(made.element, place);
  }
}

/** A table in a frame that scrolls by itself. Cells are texts or elements. A caption that only
 * repeats the heading above it is hidden, `isHeading`. */
export function table(caption, columns, rows, isHeading = false) {
  const head = columns.map(([title, kind]) => h("th", { scope: "col", className: kind ?? "" }, title));
  const body = rows.map((cells) =>
    h("tr", {}, cells.map((cell, at) => h("td", { className: columns[at][1] ?? "" }, cell))));
  return h("div", { className: "scroll", tabIndex: 0, role: "group", "aria-label": caption },
    h("table", {}, h("caption", { className: isHeading ? "hidden" : "" }, caption), h("thead", {}, h("tr", {}, head)), h("tbody", {}, body)));
}

/** Names and values. */
export function facts(pairs) {
  const known = pairs.filter(([, value]) => value !== undefined && value !== null);
  return h("dl", { className: "facts" }, known.flatMap(([term, value]) => [h("dt", {}, term), h("dd", {}, value)]));
}
