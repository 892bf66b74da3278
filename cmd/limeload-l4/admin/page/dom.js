// What the page does with the document. No data is ever parsed as HTML: texts become text nodes, and the policy of the
// page (Trusted Types) makes the browser refuse anything else.

const SVG = "http://www.w3.org/2000/svg";

// el makes an element. Properties: "on" has listeners; true is an attribute without a value; null and false are none;
// anything else is an attribute. Children are nodes and texts; null is none.
export function el(tag, properties = {}, ...children) {
  return filled(document.createElement(tag), properties, children);
}

// svg is el for SVG.
export function svg(tag, properties = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), properties, children);
}

function filled(node, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (name === "on") {
      for (const [event, listener] of Object.entries(value)) node.addEventListener(event, listener);
    } else {
      setAttribute(node, name, value);
    }
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

// setText sets the text of an element, and does not touch the document if it has that text already.
export function setText(node, text) {
  text = String(text);
  if (node.shownText !== text) {
    node.textContent = text;
    node.shownText = text;
  }
}

// setAttribute sets or removes an attribute, if it is not like that already.
export function setAttribute(node, name, value) {
  if (value === null || value === undefined || value === false) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
    return;
  }
  const text = value === true ? "" : String(value);
  if (node.getAttribute(name) !== text) node.setAttribute(name, text);
}

// A KeyedList keeps the children of an element equal to a list of items: an item keeps its row for as long as it is in
// the list, so that focus and selection stay.
export class KeyedList {
  // make returns { root, update(item) } for an item.
  constructor(parent, make) {
    this.parent = parent;
    this.make = make;
    this.rows = new Map();
  }

  // show shows items in this order. keyOf returns the key of each; all keys differ.
  show(items, keyOf) {
    const focused = this.parent.contains(document.activeElement) ? document.activeElement : null;
    const at = focused ? [...this.parent.children].findIndex((child) => child.contains(focused)) : -1;
    const gone = new Map(this.rows);
    let place = this.parent.firstElementChild;
    for (const item of items) {
      const key = keyOf(item);
      let row = this.rows.get(key);
      if (!row) {
        row = this.make(item);
        this.rows.set(key, row);
      }
      gone.delete(key);
      row.update(item);
      if (row.root === place) {
        place = place.nextElementSibling;
      } else {
        this.parent.insertBefore(row.root, place);
      }
    }
    for (const [key, row] of gone) {
      row.root.remove();
      this.rows.delete(key);
    }
    if (!focused || document.activeElement === focused) return;
    // A row that has moved has lost the focus. One that is gone leaves it to the row in its place.
    const next = focused.isConnected ? focused
      : this.parent.children[Math.min(at, items.length - 1)]?.querySelector("button, a");
    next?.focus({ preventScroll: true });
  }
}

// A Table is a table with headers. Columns have a title, a name for the style sheet, and "sort" if a click on the
// header may sort by them. On a narrow screen the style sheet makes each row a card, with the titles as labels; the
// roles keep it a table for screen readers then.
export class Table {
  constructor({ caption, columns, make, onSort }) {
    this.columns = columns;
    this.head = el("tr", { role: "row" });
    for (const column of columns) {
      const cell = el("th", { scope: "col", role: "columnheader", class: column.name });
      if (column.sort) {
        cell.append(el("button", { type: "button", class: "sort", on: { click: () => onSort(column.name) } },
          column.title, el("span", { class: "arrow", "aria-hidden": "true" })));
      } else if (column.hidden) {
        cell.append(el("span", { class: "unseen" }, column.title));
      } else {
        cell.append(column.title);
      }
      this.head.append(cell);
    }
    this.body = el("tbody", { role: "rowgroup" });
    this.root = el("table", { role: "table" }, el("caption", { class: "unseen" }, caption),
      el("thead", { role: "rowgroup" }, this.head), this.body);
    this.list = new KeyedList(this.body, make);
  }

  // show shows items, see KeyedList.
  show(items, keyOf) {
    this.list.show(items, keyOf);
  }

  // sorted marks the column that the rows are sorted by.
  sorted(name, descending) {
    this.columns.forEach((column, i) => {
      if (!column.sort) return;
      const cell = this.head.children[i];
      const order = column.name !== name ? null : descending ? "descending" : "ascending";
      setAttribute(cell, "aria-sort", order);
      setText(cell.querySelector(".arrow"), order === null ? "" : descending ? "▼" : "▲");
    });
  }
}

// row makes a row with one cell for each column of a Table. The first one is the row's header.
export function row(columns) {
  const cells = {};
  const root = el("tr", { role: "row" });
  columns.forEach((column, i) => {
    const cell = i === 0
      ? el("th", { scope: "row", role: "rowheader", class: column.name })
      : el("td", { role: "cell", class: column.name, "data-label": column.hidden ? null : column.title });
    cells[column.name] = cell;
    root.append(cell);
  });
  return { root, cells };
}

const announcer = document.getElementById("announcer");
let unread = [];
let speaking = 0;

// announce has a screen reader say a text when it is idle. Texts that come within two seconds are said together, and
// only the last of many.
export function announce(text) {
  unread.push(text);
  if (speaking) return;
  speaking = setTimeout(() => {
    const more = unread.length > 3 ? `${unread.length - 3} earlier events. ` : "";
    announcer.textContent = more + unread.slice(-3).join(". ");
    unread = [];
    speaking = 0;
  }, unread.length > 1 ? 2000 : 300);
}
