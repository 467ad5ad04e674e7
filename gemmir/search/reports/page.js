"use strict";
(() => {
  const all = (selector, root = document) => Array.from(root.querySelectorAll(selector));
  const said = (button, word) => {
    const before = button.dataset.word ?? button.textContent;
    button.dataset.word = before;
    button.textContent = word;
    setTimeout(() => { button.textContent = before; }, 1200);
  };
  const copy = async (button, text) => {
    try {
      await navigator.clipboard.writeText(text);
      said(button, "Copied");
    } catch {
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      const done = document.execCommand("copy");
      area.remove();
      said(button, done ? "Copied" : "Not allowed here");
    }
  };

  const theme = document.getElementById("theme");
  theme.hidden = false;
  theme.addEventListener("click", () => {
    const root = document.documentElement;
    const isDark = root.dataset.theme
      ? root.dataset.theme === "dark"
      : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = isDark ? "light" : "dark";
  });

  const keyOf = (row, place) => {
    const cell = row.cells[place];
    return cell.dataset.key ?? cell.textContent;
  };
  const compare = (first, second) => {
    const [a, b] = [Number(first), Number(second)];
    return Number.isNaN(a) || Number.isNaN(b) ? first.localeCompare(second) : a - b;
  };
  for (const table of all("table.sortable")) {
    const heads = all("thead th", table);
    heads.forEach((head, place) => {
      head.querySelector("button").addEventListener("click", () => {
        const isUp = head.getAttribute("aria-sort") !== "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", isUp ? "ascending" : "descending");
        const body = table.tBodies[0];
        const rows = Array.from(body.rows).map((row) => [keyOf(row, place), row]);
        rows.sort(([a], [b]) => {
          if (a === "" || b === "") return (a === "") - (b === "");
          return isUp ? compare(a, b) : compare(b, a);
        });
        body.append(...rows.map(([, row]) => row));
      });
    });
  }

  for (const button of all("button.copy")) {
    button.addEventListener("click", () => copy(button, button.dataset.copy));
  }
  for (const button of all("button.copytext")) {
    button.addEventListener("click", () => {
      const lines = all(".line:not(.removed) code", button.closest(".stage"));
      copy(button, lines.map((line) => line.textContent).join("\n") + "\n");
    });
  }
  for (const viewer of all(".viewer")) {
    const views = viewer.querySelector(".views");
    views.hidden = false;
    views.addEventListener("change", (event) => {
      viewer.dataset.view = event.target.value;
      for (const fold of all("details.fold", viewer)) fold.open = event.target.value !== "changes";
    });
  }
})();
