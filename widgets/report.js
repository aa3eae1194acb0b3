// What the report's page does: draw each figure when it comes into view, follow the light or dark
// theme, sort tables, and link the boxes of the two graphs.
"use strict";
(() => {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const config = { responsive: true, displaylogo: false, scrollZoom: false,
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };

  const colours = () => dark.matches
    ? { ink: "#e6ebf0", grid: "#323d48", outline: "#ffffff", paper: "#12171d" }
    : { ink: "#1f2933", grid: "#e4e7eb", outline: "#111827", paper: "#ffffff" };

  function themed(layout) {
    const c = colours();
    const themedLayout = { ...layout, paper_bgcolor: c.paper,
      font: { ...layout.font, color: c.ink } };
    for (const key of Object.keys(layout).filter((k) => /^[xy]axis\d*$/.test(k))) {
      themedLayout[key] = { ...layout[key], gridcolor: c.grid, zerolinecolor: c.grid };
    }
    if (layout.annotations) {
      themedLayout.annotations = layout.annotations.map((a) => a.bgcolor
        ? { ...a, bgcolor: c.paper } : a);
    }
    return themedLayout;
  }

  // On a phone the two sides of a graph lie one above the other.
  function stacked(layout, width) {
    if (width > 640 || !layout.meta || !layout.meta.sides || layout.meta.sides.length < 2) {
      return layout;
    }
    const room = layout.height - layout.margin.t - layout.margin.b;
    const spans = layout.meta.sides.map((s) =>
      Math.min(room, 60 - Math.min(...s.boxes.map((b) => b[1]))));
    const [gap, total] = [40, spans[0] + spans[1] + 40];
    const split = spans[1] / total;
    const axis = (old, span, domain) =>
      ({ ...old, domain, range: [old.range[1] - span, old.range[1]] });
    const [first, second] = layout.annotations;
    return { ...layout,
      height: total + layout.margin.t + layout.margin.b + 60,
      margin: { ...layout.margin, b: layout.margin.b + 60 },
      xaxis: { ...layout.xaxis, domain: [0, 1] }, xaxis2: { ...layout.xaxis2, domain: [0, 1] },
      yaxis: axis(layout.yaxis, spans[0], [split + gap / total, 1]),
      yaxis2: axis(layout.yaxis2, spans[1], [0, split]),
      annotations: [first, { ...second, x: 0, y: split }] };
  }

  // Plotly does not wrap titles: break the subtitle at its separators where it is too wide.
  function wrapped(layout, width) {
    const [head, style, subtitle] = layout.title.text.split(/(<br><span[^>]*>)/);
    if (!subtitle) return layout;
    const lines = [""];
    for (const part of subtitle.replace("</span>", "").split(/ · |<br>/)) {
      const words = lines.at(-1) ? ` · ${part}` : part;
      if (lines.at(-1) && (lines.at(-1) + words).length * 6.2 > width - 24) lines.push(part);
      else lines[lines.length - 1] += words;
    }
    const more = 16 * (lines.length - subtitle.split("<br>").length);
    return { ...layout, height: layout.height + more,
      margin: { ...layout.margin, t: layout.margin.t + more },
      title: { ...layout.title, text: head + style + lines.join("<br>") + "</span>" } };
  }

  const fitted = (layout, width) => wrapped(stacked(themed(layout), width), width);

  function draw(place) {
    if (place.dataset.drawn) return;
    place.dataset.drawn = "yes";
    const figure = JSON.parse(document.getElementById(place.dataset.figure).textContent);
    place.figure = figure;
    const layout = fitted(figure.layout, place.clientWidth);
    for (const t of figure.data) {
      if (t.name === "highlighted") t.marker.line.color = colours().outline;
    }
    const options = { ...config, scrollZoom: Boolean(layout.meta && layout.meta.graph) };
    Plotly.newPlot(place, figure.data, layout, options).then(() => {
      if (layout.meta && layout.meta.sides) link(place, layout.meta.sides);
    });
  }

  function link(place, sides) {
    place.on("plotly_click", (event) => {
      const point = event.points[0];
      const index = point.customdata;
      if (!Number.isInteger(index)) return;
      const side = point.data.xaxis === "x2" ? 1 : 0;
      const nodes = new Set(sides[side].origins[index]);
      sides.forEach((s, k) => {
        const found = s.origins.flatMap((o, i) =>
          (o.some((n) => nodes.has(n)) || (k === side && i === index)) ? [i] : []);
        const trace = place.data.findIndex((t) =>
          t.name === "highlighted" && (t.xaxis || "x") === (k ? "x2" : "x"));
        Plotly.restyle(place, {
          x: [found.map((i) => s.boxes[i][0])],
          base: [found.map((i) => s.boxes[i][1] - s.height / 2 - 3)],
          y: [found.map(() => s.height + 6)],
        }, [trace]);
      });
    });
  }

  const places = [...document.querySelectorAll(".figure")];
  const watcher = new IntersectionObserver((entries) => {
    for (const e of entries) if (e.isIntersecting) { draw(e.target); watcher.unobserve(e.target); }
  }, { rootMargin: "600px" });
  places.forEach((p) => watcher.observe(p));
  window.addEventListener("beforeprint", () => {
    places.forEach(draw);
    document.querySelectorAll("details").forEach((d) => { d.open = true; });
  });
  document.querySelectorAll("details").forEach((d) => d.addEventListener("toggle", () => {
    if (d.open) d.querySelectorAll(".figure").forEach(draw);
  }));
  dark.addEventListener("change", () => places.forEach((p) => {
    if (!p.dataset.drawn) return;
    const outline = colours().outline;
    const data = p.data.map((t) => t.name === "highlighted"
      ? { ...t, marker: { ...t.marker, line: { ...t.marker.line, color: outline } } } : t);
    Plotly.react(p, data, fitted(p.figure.layout, p.clientWidth));
  }));

  document.querySelectorAll("table[data-sortable] th button").forEach((button) => {
    button.addEventListener("click", () => {
      const head = button.parentElement;
      const table = head.closest("table");
      const column = [...head.parentElement.children].indexOf(head);
      const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      const value = (row) => {
        const cell = row.children[column];
        const number = cell.dataset.value;
        return number === undefined ? cell.textContent : number === "" ? null : Number(number);
      };
      const rows = [...table.tBodies[0].rows].sort((a, b) => {
        const [x, y] = [value(a), value(b)];
        if (x === null || y === null) return (x === null) - (y === null);
        return sign * (typeof x === "number" ? x - y : x.localeCompare(y, undefined, { numeric: true }));
      });
      table.querySelectorAll("th").forEach((th) => th.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      table.tBodies[0].append(...rows);
    });
  });
})();
