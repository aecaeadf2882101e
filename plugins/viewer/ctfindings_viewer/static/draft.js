// Copies the draft report. Without https, or on another name than localhost, a browser has no clipboard for pages.
document.addEventListener("click", async (event) => {
  if (!event.target.closest("#copy-draft")) return;
  const text = window.trame.state.get("draft");
  let copied = true;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const field = document.createElement("textarea");
    field.value = text;
    document.body.append(field);
    field.select();
    copied = document.execCommand("copy");
    field.remove();
  }
  const said = copied ? "The draft report was copied. Research only: read and correct it." : "The browser did not copy it.";
  window.trame.state.set("failed", !copied);
  window.trame.state.set("status", said);
});
