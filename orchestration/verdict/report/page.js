// The page is complete without this script; it adds the look-up box and lets the picture open the list below it.
(() => {
  const form = document.getElementById("lookup");
  const source = document.getElementById("counts");
  if (!form || !source) return;
  const counts = JSON.parse(source.textContent);
  const output = form.querySelector("output");
  const open = (first, second) => {
    const branch = document.getElementById("code-" + first);
    if (!branch) return;
    branch.open = true;
    const leaf = second === undefined ? null : document.getElementById("code-" + first + "-" + second);
    document.querySelectorAll(".found").forEach((node) => node.classList.remove("found"));
    (leaf || branch).classList.add("found");
    (leaf || branch).scrollIntoView({ block: "center" });
  };
  form.hidden = false;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const match = form.elements.prefix.value.match(/^\s*(\d+)(?:\D+(\d+))?/);
    if (!match) { output.textContent = "Type one or two codes, such as 17-203."; return; }
    const first = Number(match[1]), second = match[2] === undefined ? undefined : Number(match[2]);
    const pairs = counts[first] || [];
    let items = 0;
    for (let i = 0; i < pairs.length; i += 2) if (second === undefined || pairs[i] === second) items += pairs[i + 1];
    const name = second === undefined ? String(first) : first + "-" + second;
    const known = Object.keys(counts).length > 0;
    output.textContent = known ? name + ": " + items.toLocaleString("en") + (items === 1 ? " item" : " items") : "";
    open(first, second);
  });
  document.querySelectorAll("svg.icicle [data-code]").forEach((block) =>
    block.addEventListener("click", () => open(block.dataset.code)));
})();
