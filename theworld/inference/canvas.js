// Boxes drawn with the mouse over a picture. The text field with the id "boxes" holds them, one a line, as
// x1,y1,x2,y2 in pixels of the picture; what is typed there is drawn here, and what is drawn here is written there.
// Given by gradio: element (this component), props.value ({picture, width, height}), watch.
const field = () => document.querySelector("#boxes textarea");
const canvas = () => element.querySelector("canvas");
const picture = new Image();
let corner = null;   // where the mouse went down, in pixels of the picture

function boxes() {
  return field().value.split("\n").map(line => line.split(",").map(Number))
    .filter(box => box.length === 4 && box.every(Number.isFinite));
}

function draw(moving) {
  const area = canvas();
  if (!area) return;
  const size = props.value || {};
  area.width = size.width || 0;
  area.height = size.height || 0;
  area.hidden = !size.width;
  if (!size.width || !picture.complete || !picture.naturalWidth) return;
  const pen = area.getContext("2d");
  pen.drawImage(picture, 0, 0, size.width, size.height);
  const unit = Math.max(size.width, size.height) / 400;
  pen.lineWidth = unit;
  pen.font = `bold ${Math.ceil(12 * unit)}px sans-serif`;
  // As the model sees it: the same box twice is one region.
  const regions = new Map([...boxes(), ...(moving ? [moving] : [])].map(box => [String(box), box]));
  [...regions.values()].forEach(([x1, y1, x2, y2], number) => {
    pen.strokeStyle = pen.fillStyle = "#e00";
    pen.strokeRect(x1, y1, x2 - x1, y2 - y1);
    pen.fillText(`[${number}]`, x1 + 2 * unit, y1 + 13 * unit);
  });
}

function place(event) {
  const area = canvas(), frame = area.getBoundingClientRect();
  const inside = (value, most) => Math.round(Math.min(Math.max(value, 0), most));
  return [inside((event.clientX - frame.left) * area.width / frame.width, area.width),
          inside((event.clientY - frame.top) * area.height / frame.height, area.height)];
}

const between = ([ax, ay], [bx, by]) => [Math.min(ax, bx), Math.min(ay, by), Math.max(ax, bx), Math.max(ay, by)];

element.addEventListener("pointerdown", event => {
  if (event.target !== canvas()) return;
  event.target.setPointerCapture(event.pointerId);
  corner = place(event);
});
element.addEventListener("pointermove", event => { if (corner) draw(between(corner, place(event))); });
element.addEventListener("pointerup", event => {
  if (!corner) return;
  const box = between(corner, place(event));
  corner = null;
  if (box[2] - box[0] >= 2 && box[3] - box[1] >= 2) {  // a click is no box
    const text = field();
    text.value = [...text.value.split("\n").filter(line => line.trim()), box.join(",")].join("\n");
    text.dispatchEvent(new Event("input", {bubbles: true}));
  }
  draw();
});
document.addEventListener("input", event => { if (event.target === field()) draw(); });
picture.onload = () => draw();
watch("value", () => {
  picture.src = (props.value || {}).picture || "";
  draw();
});
