// Asks for the page again every few seconds, and puts what has changed in its place: nobody's reading is interrupted, and
// who hears the page is told of what is said anew.
"use strict";
const again = Number(document.currentScript.dataset.again) * 1000;
const parts = (page) => [...page.querySelectorAll("main [id]")];

async function look() {
  try {
    const answer = await fetch(location.href, { cache: "no-store" });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const [here, there] = [parts(document), parts(page)];
    document.title = page.title;
    if (here.map((part) => part.id).join() === there.map((part) => part.id).join()) {
      here.forEach((part, at) => {
        if (part.innerHTML !== there[at].innerHTML) part.innerHTML = there[at].innerHTML;
      });
    } else {
      document.querySelector("main").replaceWith(page.querySelector("main"));
    }
    if (!page.querySelector("script")) return;
  } catch {
    // Nobody answers at the moment.
  }
  setTimeout(look, again);
}

setTimeout(look, again);
