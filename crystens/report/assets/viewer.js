// Shows the crystals of a report in 3D, with 3Dmol.js. The page holds, see viewer.py: the crystals as JSON in the element
// "crystals", the panel "viewer", hidden until this script runs, and figures whose data-crystal names a crystal.
"use strict";

const crystalViewer = (() => {
  // Atoms nearer than this share of the sum of their covalent radii are bonded; atoms are drawn at half the radius.
  const BOND = 1.15;
  const DRAWN = 0.5;
  const SHORTEST_BOND = 0.1; // angstrom: atoms on top of each other have no bond

  // Atoms of n x n x n cells, with the images on the borders: [{element, place: [x, y, z] in angstrom}].
  function atoms(crystal, n) {
    const found = [];
    for (const [element, ...site] of crystal.sites) {
      const [first, second, third] = site.map((x, axis) => {
        const shifts = Array.from({ length: n }, (_, k) => k);
        if (x < crystal.borders[axis]) shifts.push(n);
        if (x > 1 - crystal.borders[axis]) shifts.push(-1);
        return shifts.map((shift) => x + shift);
      });
      for (const x of first)
        for (const y of second)
          for (const z of third) found.push({ element, place: cartesian(crystal.vectors, [x, y, z]) });
    }
    return found;
  }

  // Pairs of indices of bonded atoms.
  function bonds(crystal, all) {
    const pairs = [];
    for (let i = 0; i < all.length; i++)
      for (let j = i + 1; j < all.length; j++) {
        const reach = (BOND / DRAWN) * (crystal.elements[all[i].element].radius + crystal.elements[all[j].element].radius);
        const distance = Math.hypot(...all[i].place.map((x, axis) => x - all[j].place[axis]));
        if (distance < reach && distance > SHORTEST_BOND) pairs.push([i, j]);
      }
    return pairs;
  }

  function cartesian(vectors, fractional) {
    return [0, 1, 2].map((axis) => fractional.reduce((sum, x, k) => sum + x * vectors[k][axis], 0));
  }

  function point(place) {
    return { x: place[0], y: place[1], z: place[2] };
  }

  // The twelve edges of one cell: pairs of corners, fractional.
  function edges() {
    const found = [];
    for (let axis = 0; axis < 3; axis++)
      for (const p of [0, 1])
        for (const q of [0, 1]) {
          const start = [p, q];
          start.splice(axis, 0, 0);
          const end = start.slice();
          end[axis] = 1;
          found.push([start, end]);
        }
    return found;
  }

  function draw(stage, crystal, options) {
    stage.clear();
    const all = atoms(crystal, options.cells);
    const described = all.map(({ element, place }, index) => ({
      ...point(place), elem: crystal.elements[element].symbol, serial: index, index, bonds: [], bondOrder: [],
    }));
    if (options.bonds)
      for (const [i, j] of bonds(crystal, all)) {
        described[i].bonds.push(j);
        described[i].bondOrder.push(1);
        described[j].bonds.push(i);
        described[j].bondOrder.push(1);
      }
    const model = stage.addModel();
    model.addAtoms(described);
    for (const { symbol, colour, radius } of crystal.elements) {
      const style = { sphere: { radius: (options.bonds ? 0.7 : 1) * radius, color: colour } };
      if (options.bonds) style.stick = { radius: 0.1, color: colour };
      model.setStyle({ elem: symbol }, style);
    }
    const longest = Math.max(...crystal.vectors.map((vector) => Math.hypot(...vector)));
    for (const [start, end] of edges())
      stage.addCylinder({
        start: point(cartesian(crystal.vectors, start)), end: point(cartesian(crystal.vectors, end)),
        radius: 0.004 * options.cells * longest, color: "#444444", fromCap: 1, toCap: 1,
      });
    ["a", "b", "c"].forEach((name, axis) => {
      const end = [0, 0, 0];
      end[axis] = 1.08;
      stage.addLabel(name, {
        position: point(cartesian(crystal.vectors, end)), fontColor: "#1f2933", fontSize: 14, showBackground: false,
        alignment: "center", inFront: true,
      });
    });
    stage.zoomTo();
    stage.zoom(1.1);
    stage.render();
  }

  function legend(place, crystal) {
    place.replaceChildren(
      ...crystal.elements.map(({ symbol, colour }) => {
        const entry = document.createElement("span");
        const dot = document.createElement("i");
        dot.style.background = colour;
        entry.append(dot, symbol);
        return entry;
      }),
    );
  }

  function start() {
    const crystals = JSON.parse(document.getElementById("crystals").textContent);
    const panel = document.getElementById("viewer");
    const part = (name) => panel.querySelector(`[data-part="${name}"]`);
    const figures = [...document.querySelectorAll("figure[data-crystal]")];
    panel.hidden = false;
    let stage = null;
    try {
      stage = $3Dmol.createViewer(part("stage"), { backgroundColor: "white", orthographic: true });
      if (!stage) throw new Error("no viewer");
    } catch (error) {
      panel.dataset.state = "no WebGL";
      panel.textContent = `No 3D view: this browser offers no WebGL (${error}). The pictures below need none.`;
      return;
    }
    // The wheel scrolls the page, and zooms with Ctrl (or two fingers) only.
    part("stage").addEventListener("wheel", (event) => event.ctrlKey || event.stopPropagation(), { capture: true });

    let shown = null;
    const redraw = () => {
      draw(stage, crystals[shown], { cells: Number(part("cells").value), bonds: part("bonds").checked });
      panel.dataset.state = "shown";
      panel.dataset.atoms = stage.selectedAtoms({}).length;
    };
    const show = (name) => {
      shown = name;
      part("label").textContent = crystals[name].label.replaceAll("\n", ", ");
      legend(part("legend"), crystals[name]);
      for (const figure of figures) figure.setAttribute("aria-pressed", figure.dataset.crystal === name);
      redraw();
    };
    for (const figure of figures) {
      figure.setAttribute("role", "button");
      figure.setAttribute("tabindex", "0");
      figure.title = "show in 3D";
      const choose = () => {
        show(figure.dataset.crystal);
        panel.scrollIntoView({ block: "nearest" });
      };
      figure.addEventListener("click", choose);
      figure.addEventListener("keydown", (event) => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault();
        choose();
      });
    }
    part("cells").addEventListener("change", redraw);
    part("bonds").addEventListener("change", redraw);
    part("spin").addEventListener("change", () => stage.spin(part("spin").checked ? "y" : false, 0.5));
    part("reset").addEventListener("click", () => {
      stage.setView([0, 0, 0, 0, 0, 0, 0, 1]);
      redraw();
    });
    window.addEventListener("resize", () => stage.resize());
    show(figures[0].dataset.crystal);
  }

  return { atoms, bonds, edges, start };
})();

if (typeof module === "object") module.exports = crystalViewer;
else crystalViewer.start();
