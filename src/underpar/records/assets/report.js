(() => {
  "use strict";
  const root = document.documentElement, toggle = document.getElementById("theme");
  const order = ["auto", "light", "dark"];
  const remember = (value) => { try { localStorage.setItem("underpar-theme", value); } catch { /* a file without storage */ } };
  const recall = () => { try { return localStorage.getItem("underpar-theme"); } catch { return null; } };
  const show = (theme) => {
    if (theme === "auto") root.removeAttribute("data-theme"); else root.dataset.theme = theme;
    toggle.textContent = "Theme: " + theme;
    toggle.dataset.value = theme;
  };
  show(order.includes(recall()) ? recall() : "auto");
  toggle.addEventListener("click", () => {
    const next = order[(order.indexOf(toggle.dataset.value) + 1) % order.length];
    show(next);
    remember(next);
  });

  for (const button of document.querySelectorAll("button[data-copy]")) {
    button.addEventListener("click", async () => {
      const text = button.parentElement.querySelector("pre").textContent;
      try { await navigator.clipboard.writeText(text); button.textContent = "Copied"; }
      catch { getSelection().selectAllChildren(button.parentElement.querySelector("pre")); button.textContent = "Selected"; }
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
  }

  const nearest = (xs, x) => {
    let low = 0, high = xs.length - 1;
    while (high - low > 1) { const mid = (low + high) >> 1; if (xs[mid] < x) low = mid; else high = mid; }
    return Math.abs(xs[low] - x) <= Math.abs(xs[high] - x) ? low : high;
  };
  for (const canvas of document.querySelectorAll(".canvas")) {
    const source = canvas.querySelector("script");
    if (!source) continue;
    const plot = JSON.parse(source.textContent);
    const cursor = canvas.querySelector(".cursor"), tip = canvas.querySelector(".tip");
    const main = plot.series[0];
    let index = main.x.length - 1;
    const place = (x) => {
      const share = (x - plot.x[0]) / (plot.x[1] - plot.x[0]);
      cursor.style.left = 100 * share + "%";
      tip.replaceChildren();
      const head = document.createElement("b");
      head.textContent = plot.xName + " " + Math.round(x).toLocaleString("en");
      tip.append(head);
      for (const series of plot.series) {
        const i = nearest(series.x, x);
        const row = document.createElement("div"), key = document.createElement("i"), value = document.createElement("b");
        key.className = "key c" + series.c;
        key.style.marginRight = "0";
        value.textContent = series.y[i].toFixed(series.d);
        const at = series.dots ? ` at ${Math.round(series.x[i]).toLocaleString("en")}` : "";
        row.append(key, document.createTextNode(series.name + at), value);
        tip.append(row);
      }
      cursor.hidden = tip.hidden = false;
      const room = canvas.clientWidth, width = tip.offsetWidth, at = share * room;
      tip.style.left = Math.max(-40, Math.min(at + 12 + width > room ? at - width - 12 : at + 12, room - width)) + "px";
    };
    const hide = () => { cursor.hidden = tip.hidden = true; };
    canvas.addEventListener("pointermove", (event) => {
      const box = canvas.getBoundingClientRect();
      const share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
      index = nearest(main.x, plot.x[0] + share * (plot.x[1] - plot.x[0]));
      place(main.x[index]);
    });
    canvas.addEventListener("pointerleave", hide);
    canvas.addEventListener("blur", hide);
    canvas.addEventListener("keydown", (event) => {
      const move = { ArrowLeft: -1, ArrowRight: 1, PageUp: -20, PageDown: 20 }[event.key];
      if (event.key === "Escape") hide();
      if (!move) return;
      event.preventDefault();
      index = Math.min(main.x.length - 1, Math.max(0, index + move));
      place(main.x[index]);
    });
  }
})();
