// A search box over the tree's names: those chosen are the only ones that may be answered.

import { pathOf } from "./decision.js";
import { make } from "./view.js";

const MOST = 12; // matches shown at a time

/** Nodes whose name or synonym holds the text: whole names first, then beginnings, then the rest. */
export function findNames(names, synonyms, text, most) {
  const wanted = text.trim().toLowerCase();
  const ranks = [[], [], [], []];
  if (!wanted) return [];
  names.forEach((name, i) => {
    const at = name.indexOf(wanted);
    if (at >= 0) ranks[name === wanted ? 0 : at === 0 ? 1 : 2].push(i);
    else if (synonyms && synonyms[i].some((word) => word.toLowerCase().includes(wanted))) ranks[3].push(i);
  });
  ranks[1].sort((a, b) => names[a].length - names[b].length);
  return ranks.flat().slice(0, most);
}

export class NamePicker {
  constructor(tree, input, list, chosen, changed) {
    Object.assign(this, { tree, input, list, chosen, changed });
    this.names = tree.names.map((name) => name.toLowerCase());
    this.nodes = [];
    this.matches = [];
    this.at = -1;
    input.oninput = () => this.search();
    input.onkeydown = (event) => this.key(event);
    input.onblur = () => setTimeout(() => this.close(), 150); // a click on a match comes first
    this.draw();
  }

  search() {
    this.matches = findNames(this.names, this.tree.synonyms, this.input.value, MOST);
    this.at = this.matches.length ? 0 : -1;
    this.list.replaceChildren(...this.matches.map((node, i) => {
      const above = pathOf(this.tree, node).slice(-3, -1).map((k) => this.tree.names[k]).join(" › ");
      const row = make("li", "", this.tree.names[node], " ", make("span", "faint", above));
      row.id = `match-${i}`;
      row.setAttribute("role", "option");
      row.onpointerdown = (event) => { event.preventDefault(); this.add(node); };
      return row;
    }));
    this.mark();
  }

  mark() {
    const open = this.matches.length > 0;
    this.list.classList.toggle("hidden", !open);
    this.input.setAttribute("aria-expanded", open);
    [...this.list.children].forEach((row, i) => row.setAttribute("aria-selected", i === this.at));
    if (this.at >= 0) {
      this.input.setAttribute("aria-activedescendant", `match-${this.at}`);
      this.list.children[this.at].scrollIntoView({ block: "nearest" });
    } else this.input.removeAttribute("aria-activedescendant");
  }

  key(event) {
    const count = this.matches.length;
    if (event.key === "ArrowDown" && count) this.at = (this.at + 1) % count;
    else if (event.key === "ArrowUp" && count) this.at = (this.at + count - 1) % count;
    else if (event.key === "Enter" && this.at >= 0) return this.add(this.matches[this.at]), event.preventDefault();
    else if (event.key === "Escape") return this.close();
    else if (event.key === "Backspace" && !this.input.value && this.nodes.length) return this.remove(this.nodes.at(-1));
    else return;
    event.preventDefault();
    this.mark();
  }

  close() {
    this.matches = [];
    this.at = -1;
    this.list.replaceChildren();
    this.mark();
  }

  add(node) {
    if (!this.nodes.includes(node)) this.nodes.push(node);
    this.input.value = "";
    this.close();
    this.draw();
    this.changed();
  }

  remove(node) {
    this.nodes = this.nodes.filter((one) => one !== node);
    this.draw();
    this.changed();
    this.input.focus();
  }

  draw() {
    this.chosen.replaceChildren(...this.nodes.map((node) => {
      const button = make("button", "", `${this.tree.names[node]} ✕`);
      button.type = "button";
      button.setAttribute("aria-label", `remove ${this.tree.names[node]}`);
      button.onclick = () => this.remove(node);
      return button;
    }));
  }
}
