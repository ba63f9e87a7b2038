"use strict";
// Filters, folding, links into folded cases, printing. Without this script the page is a plain list.
(() => {
  // Nobody unfolds paper: the environment, what is judged over the cases and all of an open case.
  const onPaper =
    "#environment details, #checks details, " +
    "article.case > details[open] .fold, article.case > details[open] .error .log";
  let unfolded = [];
  addEventListener("beforeprint", () => {
    unfolded = [...document.querySelectorAll(onPaper)].filter((one) => !one.open);
    for (const one of unfolded) one.open = true;
  });
  addEventListener("afterprint", () => {
    for (const one of unfolded) one.open = false;
  });

  const words = document.body.dataset;
  for (const block of document.querySelectorAll(".command")) {
    if (!navigator.clipboard) break;
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

  const form = document.getElementById("filter");
  const cases = [...document.querySelectorAll("article.case")];
  if (!form) return;
  const shown = document.getElementById("shown");

  const apply = () => {
    const outcomes = new Set(
      [...form.querySelectorAll("input:checked")].map((box) => box.value)
    );
    const wanted = [...form.querySelectorAll("select")].map((box) => [box.name, box.value]);
    let count = 0;
    for (const item of cases) {
      const match =
        outcomes.has(item.dataset.outcome) &&
        wanted.every(([name, value]) => !value || item.dataset[name] === value);
      item.hidden = !match;
      if (match) count += 1;
    }
    shown.textContent = shown.dataset.text.replace("{shown}", count).replace("{all}", cases.length);
  };

  const follow = () => {
    const item = cases.find((one) => `#${one.id}` === location.hash);
    if (!item) return;
    if (item.hidden) {
      form.reset();
      apply();
    }
    item.querySelector("details").open = true;
    item.scrollIntoView();
  };

  const fold = (open) => {
    for (const item of cases) {
      if (!item.hidden) item.querySelector("details").open = open;
    }
  };

  form.hidden = false;
  form.addEventListener("change", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  // The event comes before the controls are back at their first values.
  form.addEventListener("reset", () => setTimeout(apply, 0));
  document.getElementById("unfold").addEventListener("click", () => fold(true));
  document.getElementById("fold").addEventListener("click", () => fold(false));
  addEventListener("hashchange", follow);
  // A browser may restore the controls of an earlier visit.
  apply();
  follow();
})();
