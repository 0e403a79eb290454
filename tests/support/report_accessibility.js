// What a reader needs of a page, computed in the browser: one entry for each fault. Contrast follows WCAG 2: 4.5 for text, 3 for large text.
() => {
  const faults = [];
  const parse = (colour) => (colour.match(/[\d.]+/g) || []).map(Number);
  const blend = (front, back) => {
    const alpha = front.length > 3 ? front[3] : 1;
    return [0, 1, 2].map((i) => front[i] * alpha + back[i] * (1 - alpha));
  };
  const background = (element) => {
    const layers = [];
    for (let node = element; node; node = node.parentElement) layers.push(parse(getComputedStyle(node).backgroundColor));
    return layers.reverse().reduce((below, layer) => blend(layer, below), [255, 255, 255]);
  };
  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((v) => (v / 255 <= 0.03928 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (a, b) => {
    const [x, y] = [luminance(a), luminance(b)].sort((p, q) => q - p);
    return (x + 0.05) / (y + 0.05);
  };
  const name = (e) => e.getAttribute("aria-label") || e.getAttribute("alt") || e.textContent.trim() || (e.labels && e.labels.length ? e.labels[0].textContent : "");

  const seen = new Set();
  for (const element of document.querySelectorAll("body *")) {
    if (!element.checkVisibility() || element.closest("svg") || ["SCRIPT", "STYLE"].includes(element.tagName)) continue;
    if (![...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim())) continue;
    const style = getComputedStyle(element), size = parseFloat(style.fontSize);
    const back = background(element), found = ratio(blend(parse(style.color), back), back);
    const wanted = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700) ? 3 : 4.5;
    const key = element.tagName + element.className + style.color;
    if (found < wanted && !seen.has(key)) faults.push(`contrast ${found.toFixed(2)} of ${key}: ${element.textContent.trim().slice(0, 40)}`);
    seen.add(key);
  }
  for (const text of document.querySelectorAll("svg.chart text, svg.chart tspan")) {
    const colour = parse(getComputedStyle(text).fill);
    if (colour.length >= 3 && ratio(colour, background(text.closest("figure"))) < 3) faults.push(`contrast of a picture's text: ${text.textContent}`);
  }
  let level = 0;
  for (const heading of document.querySelectorAll("h1, h2, h3, h4, h5")) {
    const now = Number(heading.tagName[1]);
    if (now > level + 1) faults.push(`${heading.tagName} after h${level}: ${heading.textContent.trim()}`);
    level = now;
  }
  for (const picture of document.querySelectorAll("img, svg[role=img]")) if (!name(picture)) faults.push(`a picture without a text: ${picture.outerHTML.slice(0, 80)}`);
  for (const control of document.querySelectorAll("a, button, input, summary, [tabindex='0']")) {
    if (!name(control)) faults.push(`a control without a name: ${control.outerHTML.slice(0, 80)}`);
    if (control.tabIndex < 0) faults.push(`not reachable by keyboard: ${control.outerHTML.slice(0, 80)}`);
  }
  for (const box of document.querySelectorAll("*")) {
    const style = getComputedStyle(box);
    if (!["auto", "scroll"].includes(style.overflowX) || box.scrollWidth <= box.clientWidth + 1 || !box.checkVisibility()) continue;
    if (box.tabIndex < 0 && !box.querySelector("a, button, input, summary")) faults.push(`scrolls but takes no focus: ${box.outerHTML.slice(0, 80)}`);
  }
  const labels = [...document.querySelectorAll("[role=region]")].map((e) => e.getAttribute("aria-label"));
  if (new Set(labels).size !== labels.length) faults.push("regions with the same name");
  if (document.documentElement.scrollWidth > window.innerWidth) faults.push(`the page is ${document.documentElement.scrollWidth} wide on ${window.innerWidth}`);
  if (!document.documentElement.lang || !document.title) faults.push("language or title is missing");
  return faults;
}
