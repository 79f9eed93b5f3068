// Arrow keys turn pages; a strip that is clicked is shown large, pixel by pixel.
(() => {
  const crisp = (image) => { if (image.naturalWidth && Math.max(image.naturalWidth, image.naturalHeight) <= 128) image.classList.add("crisp"); };
  document.addEventListener("load", (event) => {
    if (event.target.matches && event.target.matches(".br-pane img")) crisp(event.target);
  }, true);

  let shown = null;
  const dialog = () => {
    let found = document.getElementById("br-large");
    if (found) return found;
    found = document.createElement("dialog");
    found.id = "br-large";
    found.setAttribute("aria-labelledby", "br-large-name");
    const header = document.createElement("header");
    const name = document.createElement("b");
    name.id = "br-large-name";
    const close = document.createElement("button");
    close.textContent = "Close";
    close.addEventListener("click", () => found.close());
    header.append(name, close);
    const panes = document.createElement("div");
    panes.className = "br-panes";
    const figures = document.createElement("div");
    found.append(header, panes, figures);
    found.addEventListener("click", (event) => { if (event.target === found) found.close(); });
    document.body.append(found);
    return found;
  };
  const enlarge = (button) => {
    const large = dialog();
    shown = button;
    large.querySelector("#br-large-name").textContent = button.dataset.name;
    const panes = [...button.children].map((pane) => {
      const copy = pane.cloneNode(true);
      const image = copy.querySelector("img");
      image.loading = "eager";
      image.src = image.dataset.full;
      return copy;
    });
    large.querySelector(".br-panes").replaceChildren(...panes);
    const figures = button.parentElement.querySelector(".br-figures");
    large.lastElementChild.replaceChildren(...(figures ? [figures.cloneNode(true)] : []));
    if (!large.open) large.showModal();
  };
  document.addEventListener("click", (event) => {
    const button = event.target.closest && event.target.closest(".br-look");
    if (button) enlarge(button);
  });

  document.addEventListener("keydown", (event) => {
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
    if (event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
    const forward = event.key === "ArrowRight";
    const large = document.getElementById("br-large");
    if (large && large.open) {
      const all = [...document.querySelectorAll(".br-look")];
      const next = all[all.indexOf(shown) + (forward ? 1 : -1)];
      if (next && shown.isConnected) enlarge(next);
      event.preventDefault();
      return;
    }
    if (event.target.closest("input, textarea, select, [contenteditable], [role=combobox], [role=listbox], .br-scroll")) return;
    const button = document.getElementById(forward ? "br-next" : "br-previous");
    if (!button) return;
    event.preventDefault();
    if (!button.disabled) button.click();
  });
})();
