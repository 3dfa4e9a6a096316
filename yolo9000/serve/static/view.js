// Boxes on the picture, the list of objects, and the path of the one that is pointed at. All texts are put in
// as texts, never as markup.

import { pathOf } from "./decision.js";

export function words(count, noun) {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}

export function make(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

/** A colour for a node: relatives look alike. Light enough for black text. */
export function colourOf(path) {
  const about = path.length > 1 ? path[path.length - 2] : path[0];
  const hue = (about * 47 + path[path.length - 1] * 11) % 360;
  return `hsl(${hue} 85% 65%)`;
}

/** A probability as people read it; 100% and 0% only where it is nothing else to the last digit. */
function share(value) {
  const digits = value > 0.9995 || value < 0.0005 ? 0 : value > 0.99 || value < 0.1 ? 1 : 0;
  return `${(100 * value).toFixed(digits)}%`;
}

export class View {
  constructor(tree, boxes, list, detail) {
    Object.assign(this, { tree, boxes, list, detail });
    this.active = null;
  }

  clear() {
    this.boxes.replaceChildren();
    this.list.replaceChildren();
    this.active = null;
    this.describe(null);
  }

  /** found: of decide, best first; picture: {width, height}. */
  draw(found, picture) {
    const focused = document.activeElement && document.activeElement.dataset && document.activeElement.dataset.key;
    const boxes = [], entries = [];
    found.forEach((one, i) => {
      const key = `${one.box.map(Math.round).join(",")}`;
      const name = this.tree.names[one.node];
      const label = `${name} ${one.score.toFixed(2)}`;
      const box = make("button", "box", make("span", "", label));
      const colour = colourOf(one.path);
      const [left, top, right, bottom] = one.box;
      Object.assign(box.style, {
        left: share100(left / picture.width), top: share100(top / picture.height),
        width: share100((right - left) / picture.width), height: share100((bottom - top) / picture.height),
        borderColor: colour, zIndex: "1",
      });
      box.firstChild.style.background = colour;
      const entry = make("button", "", make("span", "", name), make("span", "number", one.score.toFixed(2)));
      for (const button of [box, entry]) {
        button.type = "button";
        button.dataset.key = `${button === box ? "b" : "e"}${key}`;
        button.setAttribute("aria-label", `${name}, score ${one.score.toFixed(2)}`);
        for (const event of ["pointerenter", "focus", "click"]) {
          button.addEventListener(event, () => this.point(key, one));
        }
      }
      boxes.push(box);
      entries.push(make("li", "", entry));
    });
    // The best is drawn last, on top; it comes first for the keyboard in the list beside.
    this.boxes.replaceChildren(...boxes.reverse());
    this.list.replaceChildren(...entries);
    const still = found.find((one) => one.box.map(Math.round).join(",") === this.active);
    this.point(still ? this.active : null, still || null);
    if (focused) {
      const again = [...document.querySelectorAll("[data-key]")].find((node) => node.dataset.key === focused);
      if (again) again.focus({ preventScroll: true });
    }
  }

  point(key, one) {
    this.active = key;
    for (const node of document.querySelectorAll("[data-key]")) {
      node.classList.toggle("active", key !== null && node.dataset.key.slice(1) === key);
    }
    this.describe(one);
  }

  describe(one) {
    if (!one) {
      this.detail.replaceChildren(make("p", "faint", "Point at a box, or tab to it: its path appears here."));
      return;
    }
    const { tree } = this;
    const name = make("h2", "", tree.names[one.node]);
    const gloss = make("p", "", (tree.glosses && tree.glosses[one.node]) || "");
    const facts = make("p", "faint");
    facts.append(`score ${one.score.toFixed(2)}, objectness ${one.objectness.toFixed(2)}`);
    if (one.given !== null) facts.append(`, Pr among the names chosen ${share(one.given)}`);
    const where = make("a", "", "in the tree");
    where.href = `/tree#${encodeURIComponent(tree.ids[one.node])}`;
    const steps = make("ol");
    steps.id = "steps";
    pathOf(tree, one.node).forEach((node, i) => {
      const fill = make("div", "fill");
      fill.style.width = share100(one.conditionals[i]);
      const bar = make("div", "bar", fill);
      const step = make("li", "", make("span", "", tree.names[node]), bar, make("span", "number", share(one.conditionals[i])));
      step.title = `Pr(${tree.names[node]} | its parent) ${one.conditionals[i].toFixed(4)}, Pr ${one.probabilities[i].toFixed(4)}`;
      steps.append(step);
    });
    this.detail.replaceChildren(name, gloss, facts, where, steps);
  }
}

function share100(value) {
  return `${(100 * value).toFixed(3)}%`;
}
