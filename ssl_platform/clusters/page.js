for (const select of document.querySelectorAll("select")) {
  const clusters = document.getElementById(select.dataset.clusters);
  select.onchange = () => {
    const [key, sign] = select.value.split(" ");
    const sorted = [...clusters.children];
    sorted.sort((a, b) => sign * (a.dataset[key] - b.dataset[key]));
    clusters.append(...sorted);
  };
}
