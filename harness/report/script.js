"use strict";
// Details on demand, filters, sorting, links into folded cases, printing.
(() => {
  const words = document.body.dataset;

  // Details: the elements that `data` has by name. A number is a place in `shared`.
  const data = JSON.parse(document.getElementById("data").textContent);
  const whole = (node) => (typeof node === "number" ? data.shared[node] : node);
  const drawn = new Set(["svg", "path"]);

  const made = (packed) => {
    const node = whole(packed);
    if (typeof node === "string") return document.createTextNode(node);
    const [tag, ...classes] = whole(node[0]).split(".");
    const space = drawn.has(tag) ? "http://www.w3.org/2000/svg" : "http://www.w3.org/1999/xhtml";
    const element = document.createElementNS(space, tag);
    if (classes.length) element.setAttribute("class", classes.join(" "));
    for (const part of node.slice(1).map(whole)) {
      const name = typeof part === "string" ? "" : whole(part[0]);
      if (name.startsWith("@")) element.setAttribute(name.slice(1), whole(part[1]));
      else element.append(made(part));
    }
    return element;
  };

  const copyable = (root) => {
    for (const block of navigator.clipboard ? root.querySelectorAll(".command") : []) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = words.copy;
      button.addEventListener("click", () => {
        navigator.clipboard.writeText(block.querySelector("pre").textContent.trim()).then(
          () => { button.textContent = words.copied; },
          () => { button.textContent = words.select; }
        );
      });
      block.append(button);
    }
  };

  const fill = (details) => {
    const place = details.querySelector(":scope > [data-node]");
    if (!place) return;
    const content = made(data.nodes[place.dataset.node]);
    copyable(content);
    place.replaceWith(content);
  };
  const open = (details) => {
    fill(details);
    details.open = true;
  };

  document.addEventListener("toggle", (event) => event.target.open && fill(event.target), true);
  copyable(document);
  for (const one of document.querySelectorAll("details[open]")) fill(one);

  // Nobody unfolds paper: the environment, what is judged over the cases and all of an open case.
  const onPaper =
    "#environment details, #checks details, article.case > details[open] .fold";
  let unfolded = [];
  addEventListener("beforeprint", () => {
    unfolded = [...document.querySelectorAll(onPaper)].filter((one) => !one.open);
    unfolded.forEach(open);
  });
  addEventListener("afterprint", () => {
    for (const one of unfolded) one.open = false;
  });

  // A head of the matrix sorts its rows, within their families, and then the families.
  const order = (row, column) => {
    const cell = row.cells[column];
    if (column === 0) return cell.textContent;
    const value = cell.querySelector("[data-sort]");
    return value ? Number(value.dataset.sort) : Infinity;
  };
  const sorted = (rows, column, turn) => {
    const known = rows.map((row) => [order(row, column), row]);
    known.sort(([one], [other]) => (one < other ? -turn : one > other ? turn : 0));
    return known.map(([, row]) => row);
  };
  const sortable = (table) => {
    let last;
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const turn = last === head && head.ariaSort === "ascending" ? -1 : 1;
        if (last) last.removeAttribute("aria-sort");
        last = head;
        head.setAttribute("aria-sort", turn === 1 ? "ascending" : "descending");
        const first = new Map();
        for (const body of table.tBodies) {
          const rows = [...body.rows].filter((row) => !row.classList.contains("family"));
          const inOrder = sorted(rows, column, turn);
          body.append(...inOrder);
          first.set(inOrder[0], body);
        }
        table.append(...sorted([...first.keys()], column, turn).map((row) => first.get(row)));
      });
    });
  };
  document.querySelectorAll("table.matrix").forEach(sortable);

  const form = document.getElementById("filter");
  if (!form) return;
  const cases = [...document.querySelectorAll("article.case")];
  const rows = [...document.querySelectorAll(".matrix tbody tr:not(.family)")];
  const families = [...document.querySelectorAll(".matrix tbody")];
  const shown = document.getElementById("shown");

  const apply = () => {
    const outcomes = new Set([...form.querySelectorAll("input:checked")].map((box) => box.value));
    const wanted = [...form.querySelectorAll("select")].filter((box) => box.value);
    const model = form.elements.model.value.trim().toLowerCase();
    const visible = new Set();
    for (const item of cases) {
      const match =
        outcomes.has(item.dataset.outcome) &&
        item.dataset.model.toLowerCase().includes(model) &&
        wanted.every((box) => item.dataset[box.name] === box.value);
      item.hidden = !match;
      if (match) visible.add(`#${item.id}`);
    }
    for (const row of rows) {
      const links = [...row.querySelectorAll("a")];
      row.hidden = !links.some((link) => visible.has(link.getAttribute("href")));
    }
    for (const body of families) body.hidden = !body.querySelector("tr:not(.family):not([hidden])");
    shown.textContent = shown.dataset.text
      .replace("{shown}", visible.size).replace("{all}", cases.length);
  };

  const follow = () => {
    const item = cases.find((one) => `#${one.id}` === location.hash);
    if (!item) return;
    if (item.hidden) {
      form.reset();
      apply();
    }
    open(item.querySelector("details"));
    item.scrollIntoView();
  };

  const each = (change) => {
    for (const item of cases) if (!item.hidden) change(item.querySelector("details"));
  };

  form.hidden = false;
  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  // The event comes before the controls are back at their first values.
  form.addEventListener("reset", () => setTimeout(apply, 0));
  document.getElementById("unfold").addEventListener("click", () => each(open));
  document.getElementById("fold").addEventListener("click", () => each((one) => { one.open = false; }));
  addEventListener("hashchange", follow);
  // A browser may restore the controls of an earlier visit.
  apply();
  follow();
})();
