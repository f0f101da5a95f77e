(() => {
  "use strict";
  const form = document.getElementById("filters"), rows = [...document.querySelectorAll("tbody tr")];
  const count = document.getElementById("count");
  const filter = () => {
    const data = new FormData(form), words = String(data.get("text")).toLowerCase().split(/\s+/).filter(Boolean);
    const verdicts = data.getAll("verdict"), flag = data.get("class"), rule = data.get("rule");
    let shown = 0;
    for (const row of rows) {
      const own = row.dataset;
      row.hidden = !(verdicts.includes(own.verdict) && words.every((word) => own.text.includes(word))
        && (!flag || own.flags.split(" ").includes(flag)) && (!rule || own.rules.split(" ").includes(rule)));
      shown += row.hidden ? 0 : 1;
    }
    for (const part of document.querySelectorAll("section")) part.hidden = !part.querySelector("tbody tr:not([hidden])");
    count.textContent = `${shown} of ${rows.length} folders`;
  };
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(filter));

  for (const button of document.querySelectorAll("th button")) {
    button.addEventListener("click", () => {
      const head = button.parentElement, body = head.closest("table").tBodies[0], index = head.cellIndex;
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const value = (row) => row.cells[index].dataset.value ?? row.cells[index].textContent.trim();
      const order = (a, b) => {
        const [x, y] = [Number.parseFloat(value(a)), Number.parseFloat(value(b))];
        if (Number.isNaN(x) !== Number.isNaN(y)) return Number.isNaN(x) ? 1 : -1;
        const less = Number.isNaN(x) ? value(a).localeCompare(value(b)) : x - y;
        return down ? -less : less;
      };
      body.append(...[...body.rows].sort(order));
    });
  }
  filter();
})();
