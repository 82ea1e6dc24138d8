// puts the sections that changed in their places, as the server sends them; without it the page loads itself anew
"use strict";
history.replaceState(null, "", location.pathname); // the token stays in the cookie, and not in what can be seen or kept
const line = document.getElementById("line");

function swap(id, html) {
  const place = document.getElementById(id);
  if (!place) return;
  const boxes = () => [...place.querySelectorAll(".scroll")];
  const folds = () => [...place.querySelectorAll("details")];
  const kept = boxes().map((box) => [box.scrollLeft, box.scrollTop, box === document.activeElement]);
  const open = folds().map((fold) => fold.open);
  place.innerHTML = html;
  folds().forEach((fold, number) => { fold.open = open[number] || false; });
  boxes().forEach((box, number) => {
    const [left, top, focused] = kept[number] || [0, 0, false];
    box.scrollTo(left, top);
    if (focused) box.focus({ preventScroll: true });
  });
}

const events = new EventSource("events?since=" + document.body.dataset.version);
events.addEventListener("open", () => { line.hidden = true; });
events.addEventListener("sections", (event) => {
  for (const [id, html] of Object.entries(JSON.parse(event.data))) swap(id, html);
});
events.addEventListener("end", () => {
  events.close();
  say("The program behind this page has ended. This is what was last seen.");
});
events.addEventListener("error", () => {
  if (events.readyState === EventSource.CONNECTING) say("The program behind this page does not answer; trying again. This is what was last seen.");
  else if (line.hidden) say("The program behind this page was started anew: open the address that it printed. This is what was last seen.");
});

function say(words) {
  line.textContent = words;
  line.hidden = false;
}
