"use strict";
const DATA = JSON.parse(document.getElementById("data").textContent);
const PER_PAGE = 48, PER_COMPACT_PAGE = 240, MOST_MATCHES = 3, SHOWN_ACROSS = 3;
const count = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// names of images, loaded once somebody searches
let names = null, waiting = [];
function namesArrived(arrived) {
  names = arrived;
  let next = 0;
  names.lower = new Array(names.names.length);
  for (const [folder, number] of names.folders) {
    const start = folder.toLowerCase();
    for (const end = next + number; next < end; next++) {
      names.lower[next] = start + names.names[next].toLowerCase();
    }
  }
  waiting.forEach(call => call());
  waiting = [];
}
function withNames(call) {
  if (names) return call();
  waiting.push(call);
  if (waiting.length === 1) document.head.append(element("script", {src: "names.js"}));
}

// clusters that a text is found in: their places in the data, each with the files that match
function found(data, number, text) {
  const matches = new Map(), wanted = text.trim().toLowerCase();
  const add = place => matches.get(place) ?? matches.set(place, {files: [], more: 0}).get(place);
  const id = /^(?:cluster\s*|#)?(\d+)$/.exec(wanted);
  if (id) {
    const place = data.ids.indexOf(Number(id[1]));
    if (place >= 0) add(place);
  }
  const classes = new Set(Object.keys(DATA.classes)
    .filter(label => DATA.classes[label].toLowerCase().includes(wanted)).map(Number));
  if (classes.size) {
    data.classes.forEach((pairs, place) => {
      if (pairs.some((label, index) => index % 2 === 0 && classes.has(label))) add(place);
    });
  }
  if (names) {
    const places = new Map(data.ids.map((id, place) => [id, place]));
    names.lower.forEach((name, image) => {
      const place = places.get(names.ids[number][image]);
      if (place === undefined || !name.includes(wanted)) return;
      const match = add(place);
      if (match.files.length < MOST_MATCHES) match.files.push(names.names[image]);
      else match.more += 1;
    });
  }
  return matches;
}

class ClusterSet {
  constructor(section) {
    this.number = Number(section.dataset.set);
    this.data = DATA.sets[this.number];
    this.data.shares = this.data.classes.map(
      (pairs, place) => pairs.length ? pairs[1] / this.data.labelled[place] : 0);
    this.section = section;
    this.form = section.querySelector("form");
    this.grid = section.querySelector(".clusters");
    this.page = 0;
    this.fillClasses();
    this.drawHistogram();
    this.listen();
    this.update();
  }

  fillClasses() {
    const select = this.form.elements.class;
    if (!select) return;
    const numbers = new Map();
    for (const pairs of this.data.classes) {
      for (let i = 0; i < pairs.length; i += 2) {
        numbers.set(pairs[i], (numbers.get(pairs[i]) ?? 0) + 1);
      }
    }
    for (const label of [...numbers.keys()].sort((a, b) => a - b)) {
      const text = `${DATA.classes[label]} (${numbers.get(label)})`;
      select.append(element("option", {value: label, textContent: text}));
    }
  }

  drawHistogram() {
    const bins = [];
    for (const size of this.data.sizes) {
      const bin = Math.floor(Math.log2(size));
      bins[bin] = (bins[bin] ?? 0) + 1;
    }
    const highest = Math.max(...Object.values(bins));
    const bars = this.section.querySelector(".bars");
    for (let bin = Number(Object.keys(bins)[0]); bin < bins.length; bin++) {
      const number = bins[bin] ?? 0, least = 2 ** bin, most = 2 ** (bin + 1) - 1;
      const range = least === most ? `${least}` : `${least}\u2013${most}`;
      const bar = element("span", {className: "bar"});
      bar.style.height = `${number ? Math.max(3, 100 * number / highest) : 0}%`;
      const button = element("button", {type: "button", disabled: !number},
        element("span", {className: "number", textContent: number.toLocaleString("en")}),
        element("span", {className: "space"}, bar),
        element("span", {className: "range", textContent: range}));
      button.setAttribute("aria-label", `${count(number, "cluster")} of ${range} images`);
      Object.assign(button.dataset, {least, most});
      button.onclick = () => {
        const isChosen = button.getAttribute("aria-pressed") === "true";
        this.form.elements.least.value = isChosen ? "" : least;
        this.form.elements.most.value = isChosen ? "" : most;
        this.update();
      };
      bars.append(button);
    }
  }

  listen() {
    let timer;
    this.form.onsubmit = event => event.preventDefault();
    this.form.oninput = event => {
      clearTimeout(timer);
      if (event.target.name !== "search") return this.update();
      timer = setTimeout(() => {
        this.update();
        if (!names) withNames(() => this.update());
      }, 150);
    };
    this.form.elements.clear.onclick = () => this.reset();
    for (const [selector, step] of [[".back", -1], [".on", 1]]) {
      for (const button of this.section.querySelectorAll(selector)) {
        button.onclick = () => {
          this.page += step;
          this.draw();
          if (button.closest(".below")) this.form.scrollIntoView();
        };
      }
    }
  }

  update() {
    const {search, class: chosen, least, most, order} = this.form.elements, data = this.data;
    this.matches = search.value.trim() ? found(data, this.number, search.value) : null;
    const label = chosen?.value ? Number(chosen.value) : null;
    const from = Number(least.value) || 0, to = Number(most.value) || Infinity;
    const [key, sign] = order.value.split(" ");
    this.places = data.ids.map((_, place) => place).filter(place =>
      data.sizes[place] >= from && data.sizes[place] <= to
      && (!this.matches || this.matches.has(place))
      && (label === null || data.classes[place].some((l, i) => i % 2 === 0 && l === label)));
    this.places.sort((a, b) => sign * (data[key][a] - data[key][b]) || data.ids[a] - data.ids[b]);
    for (const bar of this.section.querySelectorAll(".bars button")) {
      const isChosen = bar.dataset.least === least.value && bar.dataset.most === most.value;
      bar.setAttribute("aria-pressed", isChosen);
    }
    this.page = 0;
    this.draw();
  }

  draw() {
    const isCompact = this.form.elements.compact.checked;
    const perPage = isCompact ? PER_COMPACT_PAGE : PER_PAGE, total = this.places.length;
    this.page = Math.max(0, Math.min(this.page, Math.ceil(total / perPage) - 1));
    const start = this.page * perPage, end = Math.min(start + perPage, total);
    const all = count(this.data.ids.length, "cluster");
    const range = `${(start + 1).toLocaleString("en")}\u2013${end.toLocaleString("en")}`;
    let text = "no cluster fits";
    if (total === this.data.ids.length) text = `${range} of ${all}`;
    else if (total) text = `${range} of ${total.toLocaleString("en")}, out of ${all}`;
    if (this.matches && !names) text += "; looking for files \u2026";
    this.section.querySelector("[role=status]").textContent = text;
    for (const button of this.section.querySelectorAll(".back")) button.disabled = start === 0;
    for (const button of this.section.querySelectorAll(".on")) button.disabled = end === total;
    this.section.querySelector(".below").hidden = total <= perPage;
    this.grid.classList.toggle("compact", isCompact);
    this.grid.replaceChildren(...this.places.slice(start, end).map(p => this.card(p, isCompact)));
  }

  card(place, isCompact) {
    const data = this.data, id = data.ids[place];
    const path = `${this.number}/${String(id).padStart(data.digits, "0")}`;
    const heading = element("h3");
    const title = isCompact ? `${id}` : `Cluster ${id}`;
    heading.append(data.links
      ? element("a", {href: `by_cluster/${path}/`, textContent: title}) : title);
    const card = element("article", {id: `set-${this.number}-cluster-${id}`}, heading);
    const images = count(data.sizes[place], "image"), score = data.scores[place].toFixed(3);
    card.append(element("p", {textContent:
      isCompact ? images : `${images} \u00b7 mean cosine ${score}`}));
    const parts = [];
    for (let i = 0; i < data.classes[place].length; i += 2) {
      const [label, number] = data.classes[place].slice(i, i + 2);
      parts.push(`${Math.round(100 * number / data.labelled[place])}% ${DATA.classes[label]}`);
    }
    if (parts.length) {
      card.append(element("p", {className: "classes",
        textContent: isCompact ? parts[0] : parts.join(", "), title: parts.join(", ")}));
    }
    const match = this.matches?.get(place);
    if (match?.files.length) {
      const more = match.more ? ` and ${match.more.toLocaleString("en")} more` : "";
      card.append(element("p", {className: "match", textContent: match.files.join(", ") + more}));
    }
    if (data.sheets[place]) card.append(this.sheet(place, `sheets/${path}.jpg`, isCompact));
    return card;
  }

  sheet(place, source, isCompact) {
    const [width, height] = this.data.sheets[place];
    const centre = DATA.by === "k-means" ? "centroid" : "prototype";
    const image = element("img", {loading: "lazy", decoding: "async", width, height, src: source,
      alt: `The images nearest to ${centre} ${this.data.ids[place]}`});
    // compact: the nearest few of a sheet alone
    if (isCompact) image.style.width = `${100 * Math.max(1, DATA.columns / SHOWN_ACROSS)}%`;
    return element("a", {href: source, className: "sheet"}, image);
  }

  reset() {
    this.form.reset();
    this.update();
  }

  show(id) {
    this.reset();
    const place = this.places.findIndex(p => this.data.ids[p] === id);
    if (place < 0) return;
    this.page = Math.floor(place / PER_PAGE);
    this.draw();
    const card = document.getElementById(`set-${this.number}-cluster-${id}`);
    card.classList.add("chosen");
    card.scrollIntoView({block: "center"});
  }
}

const sets = [...document.querySelectorAll("section[data-set]")].map(s => new ClusterSet(s));
function follow() {
  const link = /^#set-(\d+)-cluster-(\d+)$/.exec(location.hash);
  if (link) sets[Number(link[1])]?.show(Number(link[2]));
}
addEventListener("hashchange", follow);
follow();
