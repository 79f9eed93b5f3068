// Light or dark as chosen before; all panes zoom and move in step.
(() => {
  const dark = (value) => { Quasar.Dark.set(value); localStorage.setItem("dark", value ? "1" : "0"); };
  const begin = () => {
    if (!window.Quasar) { setTimeout(begin, 50); return; }
    const kept = localStorage.getItem("dark");
    if (kept !== null) Quasar.Dark.set(kept === "1");
  };
  document.addEventListener("DOMContentLoaded", begin);

  const state = { zoom: 1, x: 0, y: 0 };
  const apply = () => {
    const edge = Math.max(0, (1 - 1 / state.zoom) / 2);
    state.x = Math.min(edge, Math.max(-edge, state.x));
    state.y = Math.min(edge, Math.max(-edge, state.y));
    for (const grid of document.querySelectorAll(".zoomed")) {
      grid.style.setProperty("--zoom", state.zoom);
      grid.style.setProperty("--x", state.x);
      grid.style.setProperty("--y", state.y);
    }
  };
  const zoom = (factor) => { state.zoom = Math.min(32, Math.max(1, state.zoom * factor)); apply(); };
  document.addEventListener("wheel", (event) => {
    if (!event.target.closest(".view")) return;
    event.preventDefault();
    zoom(event.deltaY < 0 ? 1.25 : 0.8);
  }, { passive: false });
  let held = null;
  document.addEventListener("pointerdown", (event) => {
    const view = event.target.closest(".view");
    if (view) held = { x: event.clientX, y: event.clientY, width: view.clientWidth, height: view.clientHeight };
  });
  document.addEventListener("pointermove", (event) => {
    if (!held) return;
    state.x += (event.clientX - held.x) / held.width / state.zoom;
    state.y += (event.clientY - held.y) / held.height / state.zoom;
    held.x = event.clientX; held.y = event.clientY;
    apply();
  });
  document.addEventListener("pointerup", () => { held = null; });
  document.addEventListener("pointercancel", () => { held = null; });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("input, textarea, select, [contenteditable]")) return;
    const step = 0.1 / state.zoom;
    const moves = { ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
    if (event.key === "+" || event.key === "=") zoom(1.25);
    else if (event.key === "-") zoom(0.8);
    else if (event.key === "0") { state.zoom = 1; state.x = state.y = 0; apply(); }
    else if (event.key === "d" || event.key === "D") dark(!Quasar.Dark.isActive);
    else if (state.zoom > 1 && moves[event.key] && event.target.closest(".zoomed")) {
      state.x += moves[event.key][0]; state.y += moves[event.key][1]; apply(); event.preventDefault();
    }
  });
})();
