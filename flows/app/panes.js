document.addEventListener("DOMContentLoaded", () => {
  const kept = localStorage.getItem("dark");
  const apply = () => window.Quasar ? kept !== null && Quasar.Dark.set(kept === "1") : setTimeout(apply, 50);
  apply();
});
