// A grid of thousands of equal cells that scrolls with the page, of which only those in sight exist. Arrow keys move
// through all of them.

import { h } from "./dom.js";

const GAP = 10;
const MARGIN_ROWS = 3;

/** Shows items in `frame`; `paint(element, item)` draws one into an element that may have shown another. */
export class VirtualGrid {
  /**
   * @param {HTMLElement} frame
   * @param {{ width: number, height: number, label: string, make: () => HTMLElement, paint: (element: HTMLElement, item: any) => void }} cell
   */
  constructor(frame, cell) {
    this.frame = frame;
    this.cell = cell;
    this.items = [];
    this.focused = 0;
    /** Cells in sight, by the number of the item. @type {Map<number, { place: HTMLElement, content: HTMLElement }>} */
    this.shown = new Map();
    this.spare = [];
    this.room = h("ul", { class: "room", "aria-label": cell.label });
    frame.replaceChildren(this.room);
    const soon = () => {
      this.frameRequest ||= requestAnimationFrame(() => {
        this.frameRequest = 0;
        this.layout();
      });
    };
    window.addEventListener("scroll", soon, { passive: true });
    window.addEventListener("resize", soon);
    new ResizeObserver(soon).observe(frame);
    this.room.addEventListener("keydown", (event) => this.move(event));
    this.room.addEventListener("focusin", (event) => this.follow(event));
  }

  /** Shows these from now on. Cells stay where they are, so that nobody loses the focus. */
  show(items) {
    const resized = items.length !== this.items.length;
    this.items = items;
    this.focused = Math.min(this.focused, Math.max(0, items.length - 1));
    for (const [number, { place, content }] of this.shown) {
      if (number >= items.length) {
        this.release(number);
        continue;
      }
      if (resized) place.setAttribute("aria-setsize", String(items.length));
      this.cell.paint(content, items[number]);
    }
    this.layout();
  }

  /** Draws again the items of which `changed` says so. */
  repaint(changed) {
    for (const [number, { content }] of this.shown) {
      if (changed(this.items[number])) this.cell.paint(content, this.items[number]);
    }
  }

  measure() {
    const { width, top } = this.frame.getBoundingClientRect();
    this.columns = Math.max(1, Math.floor((width + GAP) / (this.cell.width + GAP)));
    this.width = (width - GAP * (this.columns - 1)) / this.columns;
    this.step = this.cell.height + GAP;
    return top;
  }

  layout() {
    const top = this.measure();
    const height = `${Math.ceil(this.items.length / this.columns) * this.step}px`;
    if (this.room.style.height !== height) this.room.style.height = height;
    const firstRow = Math.max(0, Math.floor(-top / this.step) - MARGIN_ROWS);
    const lastRow = Math.max(0, Math.ceil((window.innerHeight - top) / this.step) + MARGIN_ROWS);
    const first = firstRow * this.columns;
    const end = Math.min(this.items.length, lastRow * this.columns);
    for (const number of [...this.shown.keys()]) {
      if ((number < first || number >= end) && number !== this.focused) this.release(number);
    }
    for (let number = first; number < end; number += 1) this.place(number);
    if (this.focused < this.items.length) this.place(this.focused);
  }

  place(number) {
    let cell = this.shown.get(number);
    if (!cell) {
      cell = this.spare.pop() ?? this.make();
      this.shown.set(number, cell);
      cell.place.dataset.number = String(number);
      cell.place.setAttribute("aria-setsize", String(this.items.length));
      cell.place.setAttribute("aria-posinset", String(number + 1));
      this.cell.paint(cell.content, this.items[number]);
      this.insert(cell.place, number);
    }
    const index = number === this.focused ? 0 : -1;
    if (cell.content.tabIndex !== index) cell.content.tabIndex = index;
    const { style } = cell.place;
    const [width, transform] = [
      `${this.width}px`,
      `translate(${(number % this.columns) * (this.width + GAP)}px, ${Math.floor(number / this.columns) * this.step}px)`,
    ];
    if (style.width !== width) style.width = width;
    if (style.transform !== transform) style.transform = transform;
  }

  /** Keeps the order of the document that of the items, for screen readers. */
  insert(place, number) {
    const { lastElementChild } = this.room;
    if (!lastElementChild || Number(lastElementChild.dataset.number) < number) return this.room.append(place);
    const after = [...this.room.children].find((other) => Number(other.dataset.number) > number);
    this.room.insertBefore(place, after ?? null);
  }

  make() {
    const content = this.cell.make();
    return { place: h("li", { class: "cell" }, content), content };
  }

  release(number) {
    const cell = this.shown.get(number);
    this.shown.delete(number);
    cell.place.remove();
    this.spare.push(cell);
  }

  follow(event) {
    const place = event.target.closest("[data-number]");
    if (!place) return;
    this.shown.get(this.focused)?.content.setAttribute("tabindex", "-1");
    this.focused = Number(place.dataset.number);
    this.shown.get(this.focused)?.content.setAttribute("tabindex", "0");
  }

  move(event) {
    const { columns } = this;
    const steps = {
      ArrowRight: 1,
      ArrowLeft: -1,
      ArrowDown: columns,
      ArrowUp: -columns,
      Home: -Infinity,
      End: Infinity,
    };
    const step = steps[event.key];
    if (step === undefined || this.items.length === 0) return;
    event.preventDefault();
    const before = this.focused;
    this.focused = Math.min(this.items.length - 1, Math.max(0, this.focused + step));
    this.shown.get(before)?.content.setAttribute("tabindex", "-1");
    const top = this.frame.getBoundingClientRect().top + Math.floor(this.focused / columns) * this.step;
    if (top < GAP) window.scrollBy(0, top - GAP);
    else if (top + this.step > window.innerHeight) window.scrollBy(0, top + this.step - window.innerHeight);
    this.layout();
    this.shown.get(this.focused).content.focus({ preventScroll: true });
  }
}
