"use strict";
// Tables: a click on a head sorts by it, a second one the other way round; empty cells stand last.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const key = row => {
      const cell = row.cells[column], text = cell.dataset.v ?? cell.textContent;
      if (text === "" || text === "–") return null;
      return text.trim() !== "" && isFinite(text) ? Number(text) : text;
    };
    const rows = [...table.tBodies[0].rows];
    const numbers = rows.some(row => typeof key(row) === "number");
    const before = head.getAttribute("aria-sort");
    // Numbers begin with the greatest, names with the first.
    const down = before ? before === "ascending" : numbers;
    heads.forEach(each => each.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const sign = down ? -1 : 1;
    rows.sort((a, b) => {
      const x = key(a), y = key(b);
      if (x === null || y === null) return (x === null) - (y === null);
      if (typeof x === "number" && typeof y === "number") return sign * (x - y);
      return sign * String(x).localeCompare(String(y), undefined, { numeric: true });
    });
    table.tBodies[0].append(...rows);
  }));
}

// Curves: a legend hides a method in all charts, and shows where it is while pointed at.
const curves = i => document.querySelectorAll(`.series[data-i="${i}"]`);
const buttons = i => document.querySelectorAll(`.legend button[data-i="${i}"]`);
for (const button of document.querySelectorAll(".legend button")) {
  const i = button.dataset.i, shown = () => button.getAttribute("aria-pressed") === "true";
  const point = on => {
    document.body.classList.toggle("dimmed", on && shown());
    curves(i).forEach(each => each.classList.toggle("bright", on && shown()));
  };
  button.addEventListener("click", () => {
    const hide = shown();
    point(false);
    buttons(i).forEach(each => each.setAttribute("aria-pressed", String(!hide)));
    curves(i).forEach(each => each.classList.toggle("hidden", hide));
  });
  button.addEventListener("pointerenter", () => point(true));
  button.addEventListener("pointerleave", () => point(false));
}

// Charts: the values under the pointer, the greatest first. Of each curve that is drawn there it is
// the nearest point; of points at one place, as of a method that sends nothing, the last.
const nearest = (lines, x, slack) => lines
  .filter(({ points }) => points.length && points[0][0] - slack <= x && x <= points[points.length - 1][0] + slack)
  .map(line => ({
    ...line, point: line.points.reduce((a, b) => Math.abs(b[0] - x) <= Math.abs(a[0] - x) ? b : a),
  }))
  .sort((a, b) => b.point[1] - a.point[1]);
const short = x => Number(x.toPrecision(6));
const readout = document.getElementById("readout");
for (const svg of document.querySelectorAll(".chart svg")) {
  const [x0, x1, , , left, right, bottom, top] = JSON.parse(svg.dataset.axes);
  const lines = [...svg.querySelectorAll(".series")].map(group => ({ group, points: JSON.parse(group.dataset.p) }));
  const cursor = document.createElementNS("http://www.w3.org/2000/svg", "path");
  cursor.setAttribute("class", "cursor");
  svg.append(cursor);
  svg.addEventListener("pointermove", event => {
    const box = svg.getBoundingClientRect();
    const at = (event.clientX - box.left) / box.width * svg.viewBox.baseVal.width;
    if (at < left || at > right) return leave();
    const x = x0 + (at - left) / (right - left) * (x1 - x0);
    const shown = lines.filter(({ group }) => !group.classList.contains("hidden"));
    const near = nearest(shown, x, 0.02 * (x1 - x0));
    // Where the points stand at different places, each says at which.
    const together = near.every(({ point }) => point[0] === near[0].point[0]);
    cursor.setAttribute("d", `M${at} ${top}V${bottom}`);
    const table = document.createElement("table");
    for (const { group, point } of near) {
      const row = table.insertRow(), dot = document.createElement("i");
      dot.className = group.classList[1];
      row.insertCell().append(dot, group.dataset.label);
      row.insertCell().textContent = point[1].toPrecision(4);
      if (!together) row.insertCell().textContent = `at ${short(point[0])}`;
    }
    const where = together && near.length ? short(near[0].point[0]) : Number(x.toPrecision(3));
    const head = `${svg.dataset.x} ${where}`;
    readout.replaceChildren(head, table);
    readout.hidden = !near.length;
    const width = readout.offsetWidth, height = readout.offsetHeight;
    const place = event.clientX + 16 + width > innerWidth ? event.clientX - width - 16 : event.clientX + 16;
    readout.style.left = `${Math.max(4, place)}px`;
    readout.style.top = `${Math.max(4, Math.min(event.clientY + 12, innerHeight - height - 4))}px`;
  });
  const leave = () => { readout.hidden = true; cursor.removeAttribute("d"); };
  svg.addEventListener("pointerleave", leave);
}

// Paper has no folds: what is folded is printed too.
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach(each => {
  each.dataset.was = each.open; each.open = true;
}));
addEventListener("afterprint", () => document.querySelectorAll("details").forEach(each => {
  each.open = each.dataset.was === "true";
}));
