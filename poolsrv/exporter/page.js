// The server renders the page, with or without this script; here a fresh copy
// takes the place of the old one every second. Not while somebody selects text.
const stale = document.getElementById("stale");

async function refresh() {
  try {
    if (!document.hidden && getSelection().isCollapsed) {
      const answer = await fetch(location.href, { signal: AbortSignal.timeout(5000) });
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      document.querySelector("main").replaceWith(fresh.querySelector("main"));
      document.title = fresh.title;
      stale.hidden = true;
    }
  } catch {
    stale.hidden = false;
  }
  setTimeout(refresh, 1000);
}

setTimeout(refresh, 1000);
