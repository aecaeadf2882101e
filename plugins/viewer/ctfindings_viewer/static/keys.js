// Tells the viewer which key was pressed, and over which view the mouse is, but for keys that are typed into a field or
// move in a list or slider. The time makes each press a change.
const CT_ARROWS = ["ArrowUp", "ArrowDown", "ArrowLeft", "ArrowRight"];
let ctView = "";
document.addEventListener("mouseover", (event) => {
  const place = event.target.closest(".layout-grid-item")?.querySelector("[id^=place-]");
  ctView = place ? place.dataset.view : "";
});
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, textarea, [role=combobox], [role=slider], .v-overlay")) return;
  const arrow = CT_ARROWS.includes(event.key);
  if (!arrow && !"nphd123NPf".includes(event.key)) return;
  if (arrow) event.preventDefault();
  window.trame.state.set("key", `${event.key} ${ctView} ${Date.now()}`);
});
