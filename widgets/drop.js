// A place to drop a file, or to choose one. The file goes to Python in pieces, each sent when the
// one before has arrived: a notebook's connection closes on a message that is too large.

const PIECE = 4 << 20;

function render({ model, el }) {
  const zone = document.createElement("button");
  zone.type = "button";
  zone.className = "wb-drop";
  const input = document.createElement("input");
  input.type = "file";
  input.accept = model.get("suffix");
  input.hidden = true;
  input.setAttribute("aria-label", model.get("prompt"));
  el.append(zone, input);
  let file = null;
  let sent = 0;

  const say = (text) => { zone.textContent = text; };
  const rest = () => say(model.get("prompt"));

  function fail(reason) {
    say(`${file.name} did not arrive: ${reason}. Drop it again, or give its path instead`);
    file = null;
    input.value = "";
  }

  async function send() {
    const offset = sent;
    let bytes;
    try {
      bytes = await file.slice(offset, offset + PIECE).arrayBuffer();
    } catch (error) { // it was moved, or changed, since it was chosen
      fail(`the browser cannot read it (${error.name})`);
      return;
    }
    sent = offset + bytes.byteLength;
    model.send({ kind: "piece", name: file.name, size: file.size, offset }, undefined,
      [new DataView(bytes)]);
    say(`${file.name}: ${Math.round((100 * sent) / Math.max(file.size, 1))} %`);
  }

  function give(given) {
    if (!given || file) return;
    if (given.size > model.get("largest")) {
      say(`${given.name} is larger than ${Math.round(model.get("largest") / 1e6)} MB: give its path instead`);
      return;
    }
    file = given;
    sent = 0;
    send();
  }

  function heard(content) {
    if (content.kind === "next" && file) send();
    if (content.kind === "failed" && file) fail(content.reason);
    if (content.kind === "done") { file = null; input.value = ""; rest(); }
  }

  const over = (event) => {
    event.preventDefault();
    event.stopPropagation();
    zone.classList.toggle("wb-over", event.type !== "dragleave");
  };
  for (const kind of ["dragenter", "dragover", "dragleave"]) zone.addEventListener(kind, over);
  zone.addEventListener("drop", (event) => {
    over(event);
    zone.classList.remove("wb-over");
    give(event.dataTransfer.files[0]);
  });
  zone.addEventListener("click", () => input.click());
  input.addEventListener("change", () => give(input.files[0]));
  model.on("msg:custom", heard);
  model.on("change:prompt", rest);
  rest();
  return () => { model.off("msg:custom", heard); model.off("change:prompt", rest); };
}

export default { render };
