// A table that sorts, filters, selects and edits. Its state lives in Python: rows and selection are
// traits, an edit is a message, and the table redraws when Python answers.

const LIMIT = 500;

function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (key in made && key !== "list") made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

function shown(value, kind) {
  if (value === null || value === undefined) return "";
  if (kind === "count") return value.toLocaleString("en-US");
  if (kind !== "number") return String(value);
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size >= 1e6 || size < 0.001) return value.toExponential(2);
  const digits = size >= 100 ? 1 : size >= 1 ? 2 : 4;
  return value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

function options(list, value, label) {
  const select = element("select", { ariaLabel: label });
  for (const item of list) select.append(element("option", { value: item, selected: item === value }, item));
  return select;
}

// A word in quotes must stand alone: "conv_1" is not found in conv_12.
function holds(text, word) {
  if (!word.startsWith('"')) return text.includes(word);
  const whole = word.slice(1, -1);
  return text.split(/[\s,;:'"()]+/).includes(whole) || ` ${text} `.includes(` ${whole} `);
}

function render({ model, el }) {
  const state = { column: -1, sign: 1, all: false, choice: null, bar: "" };
  const root = element("div", { className: "wb-table" });
  const bar = element("div", { className: "wb-bar" });
  const scroll = element("div", { className: "wb-scroll" });
  root.append(bar, scroll);
  el.append(root);

  const columns = () => model.get("_columns");
  const several = () => model.get("selection") === "many";

  // What a person types in, or has chosen, keeps the focus when it is drawn anew.
  const called = (x) => JSON.stringify(
    [x.localName, x.closest("tr")?.dataset.row, x.ariaLabel ?? x.textContent]);

  function holding(redraw) {
    const held = document.activeElement;
    if (!root.contains(held)) { redraw(); return; }
    const { selectionStart, selectionEnd } = held;
    redraw();
    if (root.contains(held)) return;
    const again = [...root.querySelectorAll("input, select, button, tr")]
      .find((x) => called(x) === called(held));
    if (!again) return;
    again.focus({ preventScroll: true });
    if (again.type === "search") again.setSelectionRange(selectionStart, selectionEnd);
  }

  // The filter: words that a row must hold, or /a regular expression/ over its text.
  function wanted() {
    const query = model.get("query").trim();
    const pattern = query.length > 2 && query.startsWith("/") && query.endsWith("/");
    if (!pattern) {
      const words = query.toLowerCase().match(/"[^"]+"|[^\s"]+/g) ?? [];
      return (text) => words.every((w) => holds(text.toLowerCase(), w));
    }
    try {
      const expression = new RegExp(query.slice(1, -1), "i");
      return (text) => expression.test(text);
    } catch {
      return () => false;
    }
  }

  function visible() {
    const fits = wanted();
    const facets = Object.entries(model.get("facets")).filter(([, value]) => value);
    const places = Object.fromEntries(columns().map((c, i) => [c.name, i]));
    const found = model.get("_rows").map((row, id) => [id, row]).filter(([, row]) =>
      facets.every(([name, value]) => String(row[places[name]]) === value)
      && fits(row.join(" ")));
    if (state.column >= 0) {
      const k = state.column;
      found.sort(([, a], [, b]) => {
        const [x, y] = [a[k], b[k]];
        if (x === null || y === null) return (x === null) - (y === null);
        const order = typeof x === "number" ? x - y
          : String(x).localeCompare(String(y), undefined, { numeric: true });
        return state.sign * order;
      });
    }
    return found;
  }

  const valuesOf = (column) => {
    const place = columns().indexOf(column);
    return [...new Set(model.get("_rows").map((r) => String(r[place])))].sort();
  };

  function drawBar() {
    const name = model.get("label");
    const searched = model.get("_rows").length > 6 || Boolean(model.get("query"));
    const faceted = columns().filter((c) => c.facet).map((c) => [c, valuesOf(c)])
      .filter(([, values]) => values.length > 1);
    const editable = several() && columns().find((c) => c.choices);
    const parts = JSON.stringify([name, searched, faceted, editable]);
    if (parts === state.bar) {
      const search = bar.querySelector('input[type="search"]');
      if (search && search.value !== model.get("query")) search.value = model.get("query");
      return;
    }
    state.bar = parts;
    bar.replaceChildren();
    const search = element("input", { type: "search", placeholder: "filter rows, or /regex/",
      value: model.get("query"), ariaLabel: `filter rows of ${name}` });
    search.addEventListener("input", () => {
      model.set("query", search.value);
      model.save_changes();
      drawBody();
    });
    if (searched) bar.append(search);
    for (const [column, values] of faceted) {
      const every = `${column.name}: all`;
      const select = options([every, ...values], model.get("facets")[column.name] || every,
        `show only this ${column.name}`);
      select.addEventListener("change", () => {
        const value = select.value === every ? "" : select.value;
        model.set("facets", { ...model.get("facets"), [column.name]: value });
        model.save_changes();
        drawBody();
      });
      bar.append(select);
    }
    if (editable) drawBulk(editable);
    bar.append(element("span", { className: "wb-count", role: "status" }));
  }

  function drawBulk(column) {
    const every = element("button", { type: "button" }, "Select shown");
    every.addEventListener("click", () => {
      const ids = visible().map(([id]) => id);
      const selected = new Set(model.get("selected"));
      select(ids.every((id) => selected.has(id)) ? [] : ids);
    });
    const choice = options(column.choices, state.choice ?? column.choices[0],
      `${column.name} for the selected rows`);
    choice.addEventListener("change", () => { state.choice = choice.value; });
    const apply = element("button", { type: "button", className: "wb-apply" }, "Set selected");
    apply.addEventListener("click", () => model.send({
      kind: "edit", rows: model.get("selected"), column: column.name, value: choice.value }));
    bar.append(every, choice, apply);
  }

  function drawHead() {
    const row = element("tr");
    if (several()) row.append(element("th", { scope: "col", ariaLabel: "selected" }));
    columns().forEach((column, index) => {
      const button = element("button", { type: "button" }, column.name);
      const head = element("th", { scope: "col", className: column.kind === "count" ? "number" : column.kind },
        button);
      if (state.column === index) {
        head.setAttribute("aria-sort", state.sign > 0 ? "ascending" : "descending");
      }
      button.addEventListener("click", () => {
        state.sign = state.column === index ? -state.sign : 1;
        state.column = index;
        draw();
        scroll.querySelectorAll("th button")[index].focus();
      });
      row.append(head);
    });
    return element("thead", {}, row);
  }

  function drawRow([id, values], selected) {
    const row = element("tr");
    row.dataset.row = id;
    row.shown = JSON.stringify(values);
    const mode = model.get("selection");
    if (mode !== "none") row.setAttribute("aria-selected", String(selected.has(id)));
    if (mode === "one") { row.className = "selectable"; row.tabIndex = 0; }
    if (mode === "many") {
      row.append(element("td", { className: "pick" }, element("input", { type: "checkbox",
        checked: selected.has(id), ariaLabel: `select ${values[0]}` })));
    }
    columns().forEach((column, index) => {
      const value = values[index];
      const cell = element("td", { className: column.kind === "count" ? "number" : column.kind });
      if (column.choices) {
        const select = options(column.choices, value, `${column.name} of ${values[0]}`);
        select.dataset.column = column.name;
        cell.append(select);
      } else {
        cell.textContent = shown(value, column.kind);
        const mark = model.get("marks")[value];
        if (mark) cell.classList.add(mark);
      }
      row.append(cell);
    });
    return row;
  }

  function drawBody() {
    const found = visible();
    const cut = state.all ? found : found.slice(0, LIMIT);
    const selected = new Set(model.get("selected"));
    const old = scroll.querySelector("tbody");
    const rows = [...(old?.rows ?? [])];
    if (cut.length && cut.length === rows.length
        && cut.every(([id], i) => rows[i].dataset.row === String(id))) {
      // The same rows: those that did not change stay, and with them a list that is open.
      cut.forEach((r, i) => {
        if (rows[i].shown !== JSON.stringify(r[1])) rows[i].replaceWith(drawRow(r, selected));
      });
      markSelected();
      return;
    }
    const body = element("tbody", {}, ...cut.map((r) => drawRow(r, selected)));
    if (!found.length) {
      body.append(element("tr", {}, element("td", { colSpan: columns().length + 1 }, "no row to show")));
    }
    if (old) old.replaceWith(body); else scroll.querySelector("table").append(body);
    count(found.length, cut.length);
  }

  function count(found, cut) {
    const total = model.get("_rows").length;
    const status = bar.querySelector(".wb-count");
    const chosen = several() ? `${model.get("selected").length} selected · ` : "";
    status.textContent = chosen + (cut < found ? `first ${cut} of ${found} rows` : found < total
      ? `${found} of ${total} rows` : `${total} row${total === 1 ? "" : "s"}`);
    const apply = bar.querySelector(".wb-apply");
    if (apply) apply.disabled = !model.get("selected").length;
    if (cut < found) {
      const more = element("button", { type: "button" }, "Show all");
      more.addEventListener("click", () => { state.all = true; drawBody(); });
      status.append(" ", more);
    }
  }

  function draw() {
    scroll.style.maxHeight = `${model.get("height")}px`;
    const table = element("table", { ariaLabel: model.get("label") }, drawHead());
    scroll.replaceChildren(table);
    drawBar();
    drawBody();
  }

  function select(ids) {
    model.set("selected", ids);
    model.save_changes();
  }

  function markSelected() {
    const selected = new Set(model.get("selected"));
    for (const row of scroll.querySelectorAll("tbody tr[aria-selected]")) {
      const on = selected.has(Number(row.dataset.row));
      row.setAttribute("aria-selected", String(on));
      const box = row.querySelector('input[type="checkbox"]');
      if (box) box.checked = on;
    }
    const found = visible().length;
    count(found, state.all ? found : Math.min(found, LIMIT));
  }

  scroll.addEventListener("change", (event) => {
    const id = Number(event.target.closest("tr").dataset.row);
    if (event.target.type === "checkbox") {
      const kept = model.get("selected").filter((r) => r !== id);
      select(event.target.checked ? [...kept, id] : kept);
    } else {
      event.target.closest("tr").shown = ""; // Python's answer decides, also where it is no
      model.send({ kind: "edit", rows: [id], column: event.target.dataset.column,
        value: event.target.value });
    }
  });
  scroll.addEventListener("click", (event) => {
    const row = event.target.closest("tr.selectable");
    if (row) select([Number(row.dataset.row)]);
  });
  scroll.addEventListener("keydown", (event) => {
    const row = event.target.closest("tr.selectable");
    if (!row || event.target !== row) return;
    const next = { ArrowDown: row.nextElementSibling, ArrowUp: row.previousElementSibling }[event.key];
    if (event.key === "Enter" || event.key === " ") select([Number(row.dataset.row)]);
    else if (next) next.focus();
    else return;
    event.preventDefault();
  });

  const redraw = () => holding(draw);
  const refill = () => holding(() => { drawBar(); drawBody(); });
  const requery = () => {
    const search = bar.querySelector('input[type="search"]');
    if (search && search.value === model.get("query")) return;
    refill();
  };
  model.on("change:query", requery);
  model.on("change:_rows", refill);
  model.on("change:_columns", redraw);
  model.on("change:selected", markSelected);
  draw();
  return () => {
    model.off("change:query", requery);
    model.off("change:_rows", refill);
    model.off("change:_columns", redraw);
    model.off("change:selected", markSelected);
  };
}

export default { render };
