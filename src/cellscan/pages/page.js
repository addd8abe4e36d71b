"use strict";

// Tables: a button in each header sorts the rows. Without this script, the order is that of the file.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  const compare = (a, b) => {
    const [x, y] = [a.dataset.value, b.dataset.value];
    return x !== undefined && y !== undefined
      ? Number(x) - Number(y)
      : a.textContent.localeCompare(b.textContent, "en", { numeric: true });
  };
  heads.forEach((head, column) => {
    const entries = [...table.tBodies[0].rows].map((row) => row.cells[column]);
    const numeric = entries.some((entry) => entry.dataset.value !== undefined);
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      const unknown = (row) => numeric && row.cells[column].dataset.value === undefined;
      const rows = [...table.tBodies[0].rows].sort(
        (a, b) => unknown(a) - unknown(b) || sign * compare(a.cells[column], b.cells[column]),
      );
      table.tBodies[0].append(...rows);
    });
  });
}

// Galleries: lists and a text choose the cells; the ticked ones, shown or not, are in the CSV file.
for (const gallery of document.querySelectorAll(".gallery")) {
  const { columns, rows, file } = JSON.parse(gallery.querySelector("script").textContent);
  const cards = [...gallery.querySelectorAll("li")];
  const boxes = cards.map((card) => card.querySelector("input"));
  const controls = gallery.querySelector(".controls");
  const selects = [...controls.querySelectorAll("select")];
  const numbers = selects.map((select) => select.dataset.numbers.split(" "));
  const search = controls.querySelector("input[type=search]");
  const texts = rows.map((row) => row.join("\n").toLowerCase());
  const tell = () => {
    const shown = cards.filter((card) => !card.hidden).length;
    const ticked = file ? `, ${boxes.filter((box) => box.checked).length} ticked` : "";
    controls.querySelector("output").textContent = `${shown} of ${cards.length} shown${ticked}`;
  };
  const choose = () => {
    const wanted = search.value.trim().toLowerCase();
    cards.forEach((card, row) => {
      const chosen = selects.every((select, n) => select.value === "" || select.value === numbers[n][row]);
      card.hidden = !(chosen && texts[row].includes(wanted));
    });
    tell();
  };
  const tick = (checked, all) => {
    cards.forEach((card, row) => { if (all || !card.hidden) boxes[row].checked = checked; });
    tell();
  };
  const download = () => {
    const quote = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
    const lines = [columns, ...rows.filter((_, row) => boxes[row].checked)].map((row) => row.map(quote).join(","));
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([`${lines.join("\r\n")}\r\n`], { type: "text/csv" }));
    link.download = file;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };
  const actions = { tick: () => tick(true, false), untick: () => tick(false, true), download };
  controls.querySelectorAll("button").forEach((one) => one.addEventListener("click", actions[one.dataset.action]));
  controls.addEventListener("input", choose);
  gallery.addEventListener("change", tell);
  controls.hidden = false;
  choose();
}

// Fields: classes and a minimum score choose the boxes.
for (const fields of document.querySelectorAll(".fields")) {
  const controls = fields.querySelector(".controls");
  const boxes = [...fields.querySelectorAll("rect")];
  const score = controls.querySelector("input[type=range]");
  const choose = () => {
    const classes = [...controls.querySelectorAll("input:checked")].map((input) => input.value);
    let shown = 0;
    for (const box of boxes) {
      const visible = classes.includes(box.dataset.label) && Number(box.dataset.score) >= Number(score.value);
      box.classList.toggle("off", !visible);
      shown += visible;
    }
    controls.querySelector("output").textContent =
      `${shown} of ${boxes.length} boxes with a score of at least ${Number(score.value).toFixed(2)}`;
  };
  controls.addEventListener("input", choose);
  controls.hidden = false;
  choose();
}
