// Regions and the sentences that name them light up together; j and k walk from sample to sample, m switches masks.
const numbers = one => new Set(one.dataset.regions.split(" "));
function light(from, on) {
  const part = from.closest("[data-regions]");
  if (!part) return;
  const wanted = numbers(part);
  part.closest(".sample").querySelectorAll("[data-regions]").forEach(other => {
    if ([...numbers(other)].some(number => wanted.has(number))) other.classList.toggle("lit", on);
  });
}
for (const [event, on] of [["mouseover", true], ["mouseout", false], ["focusin", true], ["focusout", false]]) {
  document.addEventListener(event, happened => light(happened.target, on));
}
document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const masks = document.querySelector("#masks");
  if (event.key === "m" && masks) masks.checked = !masks.checked;
  const step = {j: 1, k: -1}[event.key];
  if (!step) return;
  const all = [...document.querySelectorAll(".sample")];
  const here = all.indexOf(document.activeElement.closest(".sample"));
  const next = all[Math.min(Math.max(here + step, 0), all.length - 1)];
  if (next) { next.focus({preventScroll: true}); next.scrollIntoView({block: "start"}); }
});
