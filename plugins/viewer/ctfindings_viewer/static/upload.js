// Sends the file that was chosen in #file to the viewer itself. Its bytes go there as they are, beside the page's WebSocket.
document.addEventListener("change", async (event) => {
  if (event.target.id !== "file" || !event.target.files.length) return;
  const file = event.target.files[0];
  const say = (text, failed) => {
    window.trame.state.set("failed", failed);
    window.trame.state.set("status", text);
  };
  say(`Opening ${file.name} ...`, false);
  try {
    const answer = await fetch(`/upload?name=${encodeURIComponent(file.name)}`, { method: "POST", body: file });
    if (!answer.ok) say(await answer.text(), true);
  } catch {
    say("The viewer does not answer; is it still running?", true);
  }
  event.target.value = ""; // so that the same file can be chosen again
});
