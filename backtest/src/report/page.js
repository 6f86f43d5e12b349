"use strict";
// Shows the nearest point's values under the pointer; the picture is complete without it.
for (const figure of document.querySelectorAll("figure.chart")) {
  const points = JSON.parse(figure.querySelector("script").textContent);
  const svg = figure.querySelector("svg");
  const cursor = figure.querySelector(".cursor");
  const tip = figure.querySelector(".tip");
  const hide = () => { tip.style.visibility = "hidden"; cursor.setAttribute("x1", -9); cursor.setAttribute("x2", -9); };
  figure.addEventListener("pointerleave", hide);
  figure.addEventListener("pointermove", (event) => {
    if (points.length === 0) return;
    const box = svg.getBoundingClientRect();
    const scale = box.width / svg.viewBox.baseVal.width;
    const x = (event.clientX - box.left) / scale;
    let low = 0, high = points.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (points[middle][0] < x) low = middle + 1; else high = middle;
    }
    if (low > 0 && x - points[low - 1][0] < points[low][0] - x) low -= 1;
    const [at, text] = points[low];
    cursor.setAttribute("x1", at);
    cursor.setAttribute("x2", at);
    tip.textContent = text;
    tip.style.visibility = "visible";
    const outer = figure.getBoundingClientRect();
    const left = box.left - outer.left + at * scale;
    const onLeft = left + tip.offsetWidth + 18 > outer.width;
    tip.style.left = `${onLeft ? left - tip.offsetWidth - 12 : left + 12}px`;
    tip.style.top = `${Math.max(6, Math.min(event.clientY - outer.top - tip.offsetHeight - 8, outer.height - tip.offsetHeight - 6))}px`;
  });
}
