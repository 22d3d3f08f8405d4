"use strict";
const data = JSON.parse(document.getElementById("data").textContent);

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function drawChart(place, chart) {
  const shown = (_, value) => (value == null ? "–" : Number(value.toPrecision(4)).toString());
  const axis = {
    stroke: colour("--quiet"),
    grid: { stroke: colour("--line"), width: 1 },
    ticks: { show: false },
    font: "11px system-ui, sans-serif",
  };
  let tone = 0;
  const series = chart.series.map((one) => {
    const is_quiet = one.is_reference && chart.series.length < 3;
    const stroke = colour(is_quiet ? "--quiet" : `--c${tone++ % 10}`);
    return {
      label: one.name,
      value: shown,
      spanGaps: true,
      width: one.is_reference ? 1 : 1.75,
      dash: one.is_reference ? [5, 4] : undefined,
      stroke,
      points: { show: !one.is_reference && chart.x.length < 25, size: 5, fill: stroke },
    };
  });
  const options = {
    width: place.clientWidth,
    height: 210,
    scales: { x: { time: false } },
    axes: [{ ...axis, size: 28 }, { ...axis, size: 48 }],
    series: [{ label: "step" }, ...series],
    legend: { markers: { fill: (plot, number) => plot.series[number].stroke() } },
    cursor: { drag: { x: true, y: false } },
  };
  return new uPlot(options, [chart.x, ...chart.series.map((one) => one.values)], place);
}

let plots = [];
function drawCharts() {
  plots.forEach((plot) => plot.destroy());
  const places = [...document.querySelectorAll(".plot")];
  plots = places.map((place, number) => drawChart(place, data.charts[number]));
}
drawCharts();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawCharts);
addEventListener("resize", () => {
  plots.forEach((plot) => plot.setSize({ width: plot.root.parentNode.clientWidth, height: 210 }));
});

const field = document.querySelector(".field");
if (field) {
  const hover = document.querySelector(".hover");
  const [hoverTile, hoverText] = hover.children;
  const cell = (element, index) => {
    element.style.setProperty("--x", index % data.columns);
    element.style.setProperty("--y", Math.floor(index / data.columns));
  };
  const dots = data.captions.map((_, index) => {
    const dot = document.createElement("i");
    dot.className = "dot tile";
    cell(dot, index);
    field.append(dot);
    return dot;
  });
  const choose = {
    map: (name) => dots.forEach((dot, index) => {
      const [x, y] = data.maps[name][index];
      dot.style.left = `${100 * x}%`;
      dot.style.top = `${100 * y}%`;
    }),
    colour: (name) => {
      dots.forEach((dot, index) => {
        dot.style.setProperty("--tone", `var(--c${data.colours[name][index]})`);
      });
      const legends = document.querySelectorAll(".legend[data-of]");
      legends.forEach((one) => (one.hidden = one.dataset.of !== name));
    },
    show: (name) => field.classList.toggle("pictures", name === "pictures"),
  };
  document.querySelectorAll(".switches button").forEach((button) => {
    button.onclick = () => {
      for (const other of button.parentNode.querySelectorAll("button")) {
        other.setAttribute("aria-pressed", other === button);
      }
      choose[button.parentNode.dataset.of](button.dataset.value);
    };
    if (button.getAttribute("aria-pressed") === "true") button.onclick();
  });
  const leave = () => {
    hover.hidden = true;
    field.querySelector(".chosen")?.classList.remove("chosen");
  };
  field.onpointermove = field.onpointerdown = (event) => {
    const box = field.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    let [nearest, least] = [-1, 24 ** 2]; // pixels
    dots.forEach((dot, index) => {
      const distance = (dot.offsetLeft + dot.offsetWidth / 2 - x) ** 2
        + (dot.offsetTop + dot.offsetHeight / 2 - y) ** 2;
      if (distance < least) [nearest, least] = [index, distance];
    });
    leave();
    if (nearest < 0) return;
    dots[nearest].classList.add("chosen");
    cell(hoverTile, nearest);
    hoverText.textContent = data.captions[nearest];
    hover.hidden = false;
    hover.style.left = `${Math.max(0, x > box.width / 2 ? x - hover.offsetWidth - 14 : x + 14)}px`;
    hover.style.top = `${Math.max(0, y > box.height / 2 ? y - hover.offsetHeight - 14 : y + 14)}px`;
  };
  field.onpointerleave = leave;
}
