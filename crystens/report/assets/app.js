// Follows the question that is being answered: shows how far it is, and loads the page again when it has ended.
(() => {
  const ENDED = `${location.pathname}?ended#job`; // another address, so that the browser goes to the answer
  const panel = document.getElementById("progress");
  const text = panel.querySelector('[data-part="text"]');
  const bar = panel.querySelector("progress");
  const follow = async () => {
    try {
      const answer = await fetch(panel.dataset.state);
      const told = await answer.json();
      if (!answer.ok || told.ended) return location.replace(ENDED);
      text.textContent = told.text;
      bar.max = told.total;
      bar.value = told.done;
    } catch {
      text.textContent = "crystens app does not answer: is it still running?";
    }
    setTimeout(follow, 500);
  };
  follow();
})();
