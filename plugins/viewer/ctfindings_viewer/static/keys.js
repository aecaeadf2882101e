// Tells the viewer which key was pressed, but for keys that are typed into a field. The time makes each press a change.
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, textarea, [role=combobox]")) return;
  if ("nphd123".includes(event.key)) window.trame.state.set("key", `${event.key} ${Date.now()}`);
});
